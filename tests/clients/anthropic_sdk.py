"""The Anthropic SDK: messages, whole and streamed."""

import anthropic
import kb

ASK = {"model": "test", "max_tokens": 64, "messages": [{"role": "user", "content": "whose account is this?"}]}
EXPECTED = f"this is the account of {kb.TENANT}"

with kb.outcome("anthropic") as facts:
    client = anthropic.Anthropic(
        base_url=kb.BASE, api_key=kb.secret(), default_headers=kb.identity(), max_retries=0, timeout=20
    )
    kb.check(client.messages.create(**ASK).content[0].text, EXPECTED, "messages")

    with client.messages.stream(**ASK) as stream:
        kb.check("".join(stream.text_stream), EXPECTED, "messages, streamed")
        kb.check(stream.get_final_message().stop_reason, "end_turn", "stop reason")
    facts["version"] = anthropic.__version__
