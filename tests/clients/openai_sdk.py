"""The OpenAI SDK: chat completions and responses, whole and streamed."""

import kb
import openai

ASK = [{"role": "user", "content": "whose account is this?"}]
EXPECTED = f"this is the account of {kb.TENANT}"

with kb.outcome("openai") as facts:
    client = openai.OpenAI(
        base_url=f"{kb.BASE}/v1", api_key=kb.secret(), default_headers=kb.identity(), max_retries=0, timeout=20
    )
    whole = client.chat.completions.create(model="test", messages=ASK)
    kb.check(whole.choices[0].message.content, EXPECTED, "chat")

    chunks = [c.choices[0].delta.content or "" for c in client.chat.completions.create(model="test", messages=ASK, stream=True)]
    kb.check("".join(chunks), EXPECTED, "chat, streamed")

    kb.check(client.responses.create(model="test", input="whose?").output_text, EXPECTED, "responses")

    with client.responses.stream(model="test", input="whose?") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        kb.check(stream.get_final_response().output_text, EXPECTED, "responses, streamed, at the end")
    kb.check("".join(deltas), EXPECTED, "responses, streamed")
    facts["version"] = openai.__version__
