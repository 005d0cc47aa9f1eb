"""A CrewAI crew for two tenants at once: one tool object for all runs; model and tool both go through the proxy.

The tool takes the run's tenant from a context variable, as a service does that serves many customers in one process.
"""

import contextvars
import os
from concurrent.futures import ThreadPoolExecutor

# Before crewai is imported: it reads these then.
os.environ.update(
    CREWAI_DISABLE_TELEMETRY="true",
    CREWAI_DISABLE_TRACKING="true",
    CREWAI_TRACING_ENABLED="false",
    CREWAI_TESTING="true",
    OTEL_SDK_DISABLED="true",
    ANONYMIZED_TELEMETRY="false",
    HF_HUB_OFFLINE="1",
)

import httpx  # noqa: E402
import kb  # noqa: E402
from crewai import LLM, Agent, Crew, Task  # noqa: E402
from crewai.tools import tool  # noqa: E402

MODEL_BASE = os.environ.get("KB_MODEL_BASE", "https://api.openai.com").rstrip("/")
RUNS = 2  # of each tenant
run_tenant = contextvars.ContextVar("run_tenant")
client = httpx.Client(timeout=30)
used = {}


@tool("whoami")
def whoami(question: str) -> str:
    """Asks the provider whose account this is."""
    run, tenant = run_tenant.get()
    answer = client.get(f"{kb.BASE}/echo", headers=kb.headers(tenant), params={"q": question})
    answer.raise_for_status()
    used[run] = answer.json()["tenant"]
    return used[run]


def crew_run(run, tenant):
    run_tenant.set((run, tenant))
    llm = LLM(
        model="gpt-4o",
        provider="openai",
        base_url=f"{MODEL_BASE}/v1",
        api_key=kb.secret(tenant),
        default_headers=kb.identity(tenant),
    )
    agent = Agent(
        role="clerk", goal="say whose account it is", backstory="-", tools=[whoami], llm=llm, verbose=False, max_iter=3
    )
    task = Task(description="Whose account is this?", expected_output="a name", agent=agent)
    return Crew(agents=[agent], tasks=[task], verbose=False, tracing=False).kickoff().raw


with kb.outcome("crewai") as facts:
    runs = list(enumerate(tenant for _ in range(RUNS) for tenant in kb.TENANTS))
    with ThreadPoolExecutor(len(runs)) as threads:
        contexts = [contextvars.copy_context() for _ in runs]
        said = list(threads.map(lambda c, r: c.run(crew_run, *r), contexts, runs))
    kb.check(said, [f"this is the account of {tenant}" for _, tenant in runs], "whose account the model answered on")
    kb.check(used, dict(runs), "whose account each run's tool used")
    facts["runs"] = len(runs)
