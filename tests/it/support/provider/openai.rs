//! As much of `OpenAI`'s API as its SDK and an agent framework need: chat completions and responses, whole or streamed.

use axum::{
    Json,
    extract::Extension,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};

use super::{access::Tenant, stream::sse};

/// The model's only words; the tests look for the tenant in them.
pub(super) fn answer(tenant: &str) -> Vec<String> {
    ["this is", " the account of ", tenant].map(str::to_owned).to_vec()
}

pub(super) async fn chat(Extension(Tenant(tenant)): Extension<Tenant>, Json(ask): Json<Value>) -> Response {
    let streamed = ask["stream"] == true;
    match wanted_tool(&ask) {
        Some(call) if streamed => {
            chat_events(vec![(json!({"role": "assistant", "tool_calls": [call]}), "tool_calls")])
        }
        Some(call) => {
            chat_whole(&json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls")
        }
        None if streamed => {
            chat_events(answer(&tenant).into_iter().map(|word| (json!({"content": word}), "stop")).collect())
        }
        None => chat_whole(&json!({"role": "assistant", "content": answer(&tenant).concat()}), "stop"),
    }
}

/// Offered a tool and not yet told its result, the model calls the first one, every parameter being `echo`.
fn wanted_tool(ask: &Value) -> Option<Value> {
    let told = ask["messages"].as_array()?.iter().any(|message| message["role"] == "tool");
    let function = ask["tools"].as_array()?.first()?.get("function")?;
    let properties = function["parameters"]["properties"].as_object();
    let arguments: Value =
        properties.into_iter().flatten().map(|(name, _)| (name.clone(), json!("echo"))).collect();
    (!told).then(|| {
        let called = json!({"name": function["name"], "arguments": arguments.to_string()});
        json!({"index": 0, "id": "call_1", "type": "function", "function": called})
    })
}

fn chat_whole(message: &Value, finish: &str) -> Response {
    Json(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "test",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }))
    .into_response()
}

fn chat_events(deltas: Vec<(Value, &'static str)>) -> Response {
    let chunk = |choice: Value| json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": "test", "choices": [choice]});
    let finish = deltas.last().map_or("stop", |(_, finish)| finish);
    let last = json!({"index": 0, "delta": {}, "finish_reason": finish});
    let events: Vec<String> = deltas
        .into_iter()
        .map(|(delta, _)| json!({"index": 0, "delta": delta, "finish_reason": null}))
        .chain([last])
        .map(|choice| format!("data: {}\n\n", chunk(choice)))
        .chain(["data: [DONE]\n\n".to_owned()])
        .collect();
    sse(stream::iter(events))
}

pub(super) async fn responses(
    Extension(Tenant(tenant)): Extension<Tenant>,
    Json(ask): Json<Value>,
) -> Response {
    let words = answer(&tenant);
    if ask["stream"] == true {
        return sse(stream::iter(response_events(&words)));
    }
    Json(response("completed", &[message(&words.concat())])).into_response()
}

fn response(status: &str, output: &[Value]) -> Value {
    json!({
        "id": "resp_1", "object": "response", "created_at": 0, "status": status, "model": "test", "output": output,
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
    })
}

fn message(text: &str) -> Value {
    let part = json!({"type": "output_text", "text": text, "annotations": []});
    json!({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]})
}

fn response_events(words: &[String]) -> Vec<String> {
    let (item, text) = (message(&words.concat()), words.concat());
    let at = |kind: &str| json!({"type": kind, "item_id": "msg_1", "output_index": 0, "content_index": 0});
    let with = |kind: &str, name: &str, value: Value| {
        let mut event = at(kind);
        event[name] = value;
        event
    };
    let mut events = vec![
        with("response.created", "response", response("in_progress", &[])),
        with(
            "response.output_item.added",
            "item",
            json!({"type": "message", "id": "msg_1", "status": "in_progress", "role": "assistant", "content": []}),
        ),
        with(
            "response.content_part.added",
            "part",
            json!({"type": "output_text", "text": "", "annotations": []}),
        ),
    ];
    events.extend(words.iter().map(|word| with("response.output_text.delta", "delta", json!(word))));
    events.extend([
        with("response.output_text.done", "text", json!(text)),
        with("response.content_part.done", "part", item["content"][0].clone()),
        with("response.output_item.done", "item", item.clone()),
        with("response.completed", "response", response("completed", &[item])),
    ]);
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(number);
    }
    events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
        .collect()
}
