// What every Node client shares; kb.py says what the variables mean.

const env = process.env;
export const base = env.KB_BASE.replace(/\/$/, '');
export const tenants = (env.KB_TENANTS ?? 'acme').split(',');
export const tenant = tenants[0];
const credentials = JSON.parse(env.KB_CREDENTIALS || '{}');

export function headers(who = tenant) {
  const named = { 'Agent-Identity': `tenant="${who}", role="${env.KB_ROLE ?? 'researcher'}"` };
  return {
    Authorization: `Bearer ${credentials[who] ?? 'placeholder-from-the-agent'}`,
    ...((env.KB_IDENTITY ?? 'header') === 'header' ? named : {}),
  };
}

export function check(got, expected, what) {
  if (JSON.stringify(got) !== JSON.stringify(expected)) {
    throw new Error(`${what}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(got)}`);
  }
}

/// Prints {client, ok, detail} whatever the work does, and exits 1 if it failed.
export async function outcome(client, work) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error('no end after 60 s')), 60_000).unref());
  let line;
  try {
    line = { client, ok: true, detail: { node: process.version, ...(await Promise.race([work(), late])) } };
  } catch (error) {
    const causes = [];
    for (let e = error; e && causes.length < 4; e = e.cause) causes.push(`${e.name}: ${e.message}`);
    line = { client, ok: false, detail: causes.join(' <- ') };
  }
  process.stdout.write(`${JSON.stringify(line)}\n`, () => process.exit(line.ok ? 0 : 1));
}
