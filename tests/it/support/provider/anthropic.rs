//! Anthropic's messages, whole or as its event stream.

use axum::{
    Json,
    extract::Extension,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};

use super::{access::Tenant, openai::answer, stream::sse};

pub(super) async fn messages(
    Extension(Tenant(tenant)): Extension<Tenant>,
    Json(ask): Json<Value>,
) -> Response {
    let words = answer(&tenant);
    if ask["stream"] == true {
        return sse(stream::iter(events(&words)));
    }
    Json(message(&json!([{"type": "text", "text": words.concat()}]), &json!("end_turn"))).into_response()
}

fn message(content: &Value, stop_reason: &Value) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "test", "content": content,
        "stop_reason": stop_reason, "stop_sequence": null, "usage": {"input_tokens": 1, "output_tokens": 1},
    })
}

fn events(words: &[String]) -> Vec<String> {
    let mut events = vec![
        json!({"type": "message_start", "message": message(&json!([]), &Value::Null)}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
    ];
    events.extend(words.iter().map(|word| {
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
    }));
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": 1}}),
        json!({"type": "message_stop"}),
    ]);
    events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
        .collect()
}
