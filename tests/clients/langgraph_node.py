"""A LangGraph tool node, one graph and one tool for all tenants; each run's configuration names its tenant."""

import asyncio

import httpx
import kb
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

RUNS = 8
client = httpx.AsyncClient(timeout=30)


@tool
async def whoami(question: str, config: RunnableConfig) -> str:
    """Asks the provider whose account this is."""
    answer = await client.get(f"{kb.BASE}/echo", headers=kb.headers(config["configurable"]["tenant"]), params={"q": question})
    answer.raise_for_status()
    return answer.json()["tenant"]


def decide(_state):
    call = {"name": "whoami", "args": {"question": "who?"}, "id": "call_1", "type": "tool_call"}
    return {"messages": [AIMessage(content="", tool_calls=[call])]}


def crew():
    graph = StateGraph(MessagesState)
    graph.add_node("decide", decide)
    graph.add_node("tools", ToolNode([whoami]))
    graph.add_edge(START, "decide")
    graph.add_edge("decide", "tools")
    graph.add_edge("tools", END)
    return graph.compile()


async def runs():
    graph = crew()
    tenants = [tenant for _ in range(RUNS) for tenant in kb.TENANTS]
    run = lambda tenant: graph.ainvoke({"messages": []}, {"configurable": {"tenant": tenant}})  # noqa: E731
    results = await asyncio.gather(*map(run, tenants))
    kb.check([result["messages"][-1].content for result in results], tenants, "whose account each run used")
    return len(tenants)


with kb.outcome("langgraph") as facts:
    facts["runs"] = asyncio.run(runs())
