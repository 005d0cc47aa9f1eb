// Node's own fetch. It is given a proxy where nobody listens; if the call succeeds all the same, it went past the
// proxy. Node 20 does that, NODE_USE_ENV_PROXY or not; only transparent mode catches it.
import { base, check, headers, outcome, tenant } from './kb.mjs';

await outcome('node fetch', async () => {
  try {
    const answer = await fetch(`${base}/echo`, { headers: headers() });
    check((await answer.json()).tenant, tenant, 'tenant');
    return { proxy: 'ignored' };
  } catch (error) {
    if (error.cause?.code === 'ECONNREFUSED') return { proxy: 'used' };
    throw error;
  }
});
