// A certified authorization server on loopback: https://www.npmjs.com/package/oidc-provider
//
//   AS_HOST=auth.server.test AS_KEY=key.pem AS_CERT=cert.pem AS_CLIENTS='[{...}]' node authorization_server.mjs
//
// Prints {"port": n} and serves until its standard input ends, so that it never outlives who started it.
// People sign in under any name, agree to the scopes that are ticked, and are sent back.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { webcrypto } from 'node:crypto';

// Standard output is for the port alone: nobody reads on after it.
console.log = console.error;
console.info = console.error;
// What Debian 12's Node 18 lacks of the Node 22 that the package is made for.
globalThis.crypto ??= webcrypto;
URL.parse ??= (url, base) => { try { return new URL(url, base); } catch { return null; } };
const { default: Provider, errors } = await import('oidc-provider');

const env = process.env;
const server = createServer({ key: readFileSync(env.AS_KEY), cert: readFileSync(env.AS_CERT) });
await new Promise((listening) => { server.listen(0, '127.0.0.1', listening); });
const { port } = server.address();
const scopes = ['records:read', 'records:write'];

const provider = new Provider(`https://${env.AS_HOST}:${port}`, {
  clients: JSON.parse(env.AS_CLIENTS),
  scopes: ['openid', 'offline_access', ...scopes],
  clientDefaults: { grant_types: ['authorization_code', 'refresh_token', 'client_credentials'] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    registration: { enabled: false },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => `https://${env.AS_HOST}/records`,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: scopes.join(' '), accessTokenFormat: 'opaque' }),
    },
  },
  findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  issueRefreshToken: (_, client, code) => client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  pkce: { required: () => true },
  rotateRefreshToken: true,
  ttl: { AccessToken: Number(env.AS_ACCESS_TTL ?? 3600), ClientCredentials: 600, RefreshToken: 86_400, Grant: 86_400, Session: 3600, Interaction: 600 },
});

const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const page = (title, body) => `<!doctype html><title>${title}</title><form method="post">${body}</form>`;
const login = () => page('Sign in', '<input name="login" aria-label="name"><button>Sign in</button>');

function consent(asked) {
  const boxes = asked.map((scope) => `<label><input type="checkbox" name="scope" value="${escape(scope)}" checked>${escape(scope)}</label>`);
  return page('Consent', `${boxes.join('')}<button name="answer" value="allow">Allow</button><button name="answer" value="deny">Deny</button>`);
}

async function form(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return new URLSearchParams(text);
}

// What the client asked for and this person has not agreed to yet, beyond what needs no tick.
const missing = ({ prompt }) => Object.values(prompt.details.missingResourceScopes ?? {}).flat();

async function interact(request, response) {
  const details = await provider.interactionDetails(request, response);
  const { name } = details.prompt;
  if (request.method === 'GET') {
    response.setHeader('content-type', 'text/html; charset=utf-8');
    return response.end(name === 'login' ? login() : consent(missing(details)));
  }
  const said = await form(request);
  const result = name === 'login' ? { login: { accountId: said.get('login') } } : await agreed(details, said);
  return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

async function agreed(details, said) {
  if (said.get('answer') !== 'allow') return { error: 'access_denied', error_description: 'the person declined' };
  const { params, session, grantId, prompt } = details;
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (prompt.details.missingOIDCScope) grant.addOIDCScope(prompt.details.missingOIDCScope.join(' '));
  const ticked = new Set(said.getAll('scope'));
  for (const [resource, asked] of Object.entries(prompt.details.missingResourceScopes ?? {})) {
    const [yes, no] = [asked.filter((scope) => ticked.has(scope)), asked.filter((scope) => !ticked.has(scope))];
    if (yes.length) grant.addResourceScope(resource, yes.join(' '));
    if (no.length) grant.rejectResourceScope(resource, no.join(' '));
  }
  return { consent: { grantId: await grant.save() } };
}

const rest = provider.callback();
server.on('request', (request, response) => {
  if (!request.url.startsWith('/interaction/')) return rest(request, response);
  return interact(request, response).catch((error) => {
    response.statusCode = error instanceof errors.OIDCProviderError ? 400 : 500;
    response.end(`${error.name}: ${error.message}`);
  });
});

process.stdout.write(`${JSON.stringify({ port })}\n`);
process.stdin.resume().on('end', () => process.exit(0));
