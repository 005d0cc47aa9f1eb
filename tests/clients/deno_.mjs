// Deno's own fetch: calls side by side, a streamed upload, an event stream. It reads proxy variables and DENO_CERT.
import { createHash } from 'node:crypto';
import { base, check, headers, outcome, tenant } from './kb.mjs';

const call = (path, options) => fetch(`${base}${path}`, { headers: headers(), ...options });
const chunks = Array.from({ length: 16 }, (_, n) => new Uint8Array(65536).fill(n));

await outcome('deno', async () => {
  const answers = await Promise.all([1, 2, 3].map((n) => call(`/echo?n=${n}`)));
  const told = await Promise.all(answers.map((answer) => answer.json()));
  check(told.map((one) => one.tenant), [tenant, tenant, tenant], 'tenants');

  const digest = createHash('sha256');
  for (const chunk of chunks) digest.update(chunk);
  const sent = await call('/upload', { method: 'PUT', body: ReadableStream.from(chunks) });
  check((await sent.json()).sha256, digest.digest('hex'), 'upload');

  const stream = await call('/stream/5');
  let text = '';
  for await (const chunk of stream.body.pipeThrough(new TextDecoderStream())) text += chunk;
  check(text.match(/^data: /gm).length, 5, 'events');
  return { deno: Deno.version.deno };
});
