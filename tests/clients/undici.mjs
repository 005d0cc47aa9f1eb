// undici's fetch with its proxy agent: calls side by side, a streamed upload, an event stream.
import { createHash } from 'node:crypto';
import { ProxyAgent, fetch } from 'undici';
import { base, check, headers, outcome, tenant } from './kb.mjs';

const proxy = process.env.HTTPS_PROXY;
const dispatcher = proxy && new ProxyAgent(proxy);
const call = (path, options) => fetch(`${base}${path}`, { headers: headers(), dispatcher, ...options });

async function* body() {
  for (let n = 0; n < 16; n += 1) yield Buffer.alloc(65536, n);
}

await outcome('undici', async () => {
  const answers = await Promise.all([1, 2, 3].map((n) => call(`/echo?n=${n}`)));
  const told = await Promise.all(answers.map((answer) => answer.json()));
  check(told.map((one) => one.tenant), [tenant, tenant, tenant], 'tenants');

  const digest = createHash('sha256');
  for await (const chunk of body()) digest.update(chunk);
  const sent = await call('/upload', { method: 'PUT', body: body(), duplex: 'half' });
  check((await sent.json()).sha256, digest.digest('hex'), 'upload');

  const stream = await call('/stream/5');
  let text = '';
  for await (const chunk of stream.body.pipeThrough(new TextDecoderStream())) text += chunk;
  check(text.match(/^data: /gm).length, 5, 'events');
});
