// The ws package through https-proxy-agent: the handshake and messages up to 1 MiB.
import { HttpsProxyAgent } from 'https-proxy-agent';
import { WebSocket } from 'ws';
import { base, check, headers, outcome, tenant } from './kb.mjs';

const sent = ['hello', 'k'.repeat(1 << 20)];

await outcome('ws', () => new Promise((resolve, reject) => {
  const proxy = process.env.HTTPS_PROXY;
  const agent = proxy && new HttpsProxyAgent(proxy);
  const socket = new WebSocket(`${base.replace('http', 'ws')}/ws`, { agent, headers: headers() });
  const received = [];
  let whose;
  socket.on('error', reject);
  socket.on('upgrade', (answer) => { whose = answer.headers['x-provider-tenant']; });
  socket.on('open', () => sent.forEach((message) => socket.send(message)));
  socket.on('message', (data) => {
    received.push(data.toString());
    if (received.length === sent.length) socket.close();
  });
  socket.on('close', () => {
    try {
      check(whose, tenant, 'tenant');
      check(received, sent, 'echo');
      resolve();
    } catch (error) {
      reject(error);
    }
  });
}));
