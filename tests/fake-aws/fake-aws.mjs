/*
 * An AWS of our own, for tests: what a task on ECS sees of it.
 *
 *	GET  /credentials		the task role's keys, as ECS gives them
 *	GET  /v4/ID, /v4/ID/task	task metadata, version 4
 *	POST /				Secrets Manager: GetSecretValue
 *	GET  /_control			what was asked so far
 *	POST /_control			change what is answered, see control()
 *
 * Signatures are verified by AWS's own signer (@smithy/signature-v4), which
 * shares no code with the client under test: the request is signed once more
 * with the fields that the client says it has signed, taken from what has
 * really arrived.  A field that was signed and not sent is refused, as AWS
 * does.
 *
 * usage: node fake-aws.mjs [PORT]; prints "listening PORT".
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';
import { HttpRequest } from '@smithy/protocol-http';
import { SignatureV4 } from '@smithy/signature-v4';

const SKEW_MS_MAX = 5 * 60 * 1000;
const BODY_BYTES_MAX = 1 << 20;
const ACCOUNT = '123456789012';
const AUTHORIZATION = new RegExp(
  '^AWS4-HMAC-SHA256 Credential=([^/, ]+)/(\\d{8})/([a-z0-9-]+)/' +
  '([a-z0-9]+)/aws4_request, ?SignedHeaders=([a-z0-9;-]+), ?' +
  'Signature=([0-9a-f]{64})$');

const state = {
  now: 0, // ms to add to our clock
  slow: 0, // ms before each answer of Secrets Manager
  ttl: 3600, // seconds that the task role's keys live
  token: null, // what Authorization of /credentials has to be
  keys: new Map(), // id -> {secret, token, expires (ms), revoked}
  role: null, // the id that /credentials gives at the moment
  secrets: new Map(), // name -> {arn, versions: Map(id -> value), stages}
  denied: new Set(), // names that the role may not read
  faults: [], // {kind, count, ...}, the first one is used first
  metadata: {},
  requests: [], // {what, secret, stage, result}
  made: 0,
};

/* The signer wants a hash by constructor; this one is Node's. */
class Sha256 {
  constructor(key) {
    this.hash = key === undefined
      ? createHash('sha256')
      : createHmac('sha256', key);
  }

  update(data) {
    this.hash.update(data);
  }

  async digest() {
    return new Uint8Array(this.hash.digest());
  }
}

class Refusal extends Error {
  constructor(type, message, status = 400, headers = {}) {
    super(message);
    Object.assign(this, { type, status, headers });
  }
}

const clock = () => Date.now() + state.now;
const iso = (ms) => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
const basic = (ms) => iso(ms).replace(/[-:]/g, '');

/* ---- keys */

function newKey(id, secret, token, expires) {
  state.keys.set(id, { secret, token, expires, revoked: false });
  return id;
}

function roleCredentials() {
  const old = state.keys.get(state.role);

  if (old === undefined || old.revoked ||
      old.expires - clock() < state.ttl * 500) {
    state.made++;
    state.role = newKey(`ASIATEST${String(state.made).padStart(8, '0')}`,
      createHash('sha256').update(`secret ${state.made}`).digest('base64'),
      createHash('sha512').update(`token ${state.made}`).digest('base64')
        .repeat(10).slice(0, 800), clock() + state.ttl * 1000);
  }
  const key = state.keys.get(state.role);
  return {
    RoleArn: `arn:aws:iam::${ACCOUNT}:role/task`,
    AccessKeyId: state.role,
    SecretAccessKey: key.secret,
    Token: key.token,
    Expiration: iso(key.expires),
  };
}

/* ---- signatures */

function signedTime(request) {
  const text = request.headers['x-amz-date'] ?? '';
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text);

  if (parts === null) {
    throw new Refusal('IncompleteSignatureException', 'no X-Amz-Date');
  }
  const [, year, month, day, hour, minute, second] = parts.map(Number);
  const at = Date.UTC(year, month - 1, day, hour, minute, second);
  if (at < clock() - SKEW_MS_MAX) {
    throw new Refusal('InvalidSignatureException',
      `Signature expired: ${text} is now earlier than ` +
      `${basic(clock() - SKEW_MS_MAX)} (${basic(clock())} - 5 min.)`);
  }
  if (at > clock() + SKEW_MS_MAX) {
    throw new Refusal('InvalidSignatureException',
      `Signature not yet current: ${text} is still later than ` +
      `${basic(clock() + SKEW_MS_MAX)} (${basic(clock())} + 5 min.)`);
  }
  return new Date(at);
}

function signedFields(request, names) {
  const fields = {};

  for (const name of names) {
    if (request.headers[name] === undefined) {
      throw new Refusal('InvalidSignatureException',
        `The request signature does not match: ${name} was signed ` +
        'and not sent.');
    }
    fields[name] = request.headers[name];
  }
  if (fields.host === undefined) {
    throw new Refusal('InvalidSignatureException', 'host is not signed');
  }
  return fields;
}

async function verify(request, body) {
  const found = AUTHORIZATION.exec(request.headers.authorization ?? '');

  if (found === null) {
    throw new Refusal('MissingAuthenticationTokenException',
      'Request is missing Authentication Token');
  }
  const [, id, day, region, service, names, signature] = found;
  const key = state.keys.get(id);
  if (key === undefined || key.revoked) {
    throw new Refusal('UnrecognizedClientException',
      'The security token included in the request is invalid.');
  }
  const date = signedTime(request);
  if (day !== basic(date.getTime()).slice(0, 8) ||
      service !== 'secretsmanager') {
    throw new Refusal('InvalidSignatureException',
      'Credential should be scoped to a valid date and service.');
  }
  const headers = signedFields(request, names.split(';'));
  if (key.token !== null && headers['x-amz-security-token'] !== key.token) {
    throw new Refusal('UnrecognizedClientException',
      'The security token included in the request is invalid.');
  }
  const signer = new SignatureV4({
    applyChecksum: false,
    credentials: { accessKeyId: id, secretAccessKey: key.secret },
    region,
    service,
    sha256: Sha256,
  });
  const mine = await signer.sign(new HttpRequest({
    method: request.method, protocol: 'http:', path: '/', headers, body,
    hostname: headers.host.replace(/:.*/, ''),
  }), { signingDate: date, signableHeaders: new Set(names.split(';')) });
  const want = AUTHORIZATION.exec(mine.headers.authorization);
  if (want[5] !== names ||
      !timingSafeEqual(Buffer.from(want[6]), Buffer.from(signature))) {
    throw new Refusal('InvalidSignatureException',
      'The request signature we calculated does not match the signature ' +
      'you provided.');
  }
  if (key.expires !== null && key.expires < clock()) {
    throw new Refusal('ExpiredTokenException',
      'The security token included in the request is expired');
  }
  return region;
}

/* ---- secrets */

/* A version by itself is current; what it replaces becomes the previous. */
function putSecret({ name, value, stage = 'AWSCURRENT' }) {
  let secret = state.secrets.get(name);

  if (secret === undefined) {
    secret = {
      arn: `arn:aws:secretsmanager:us-east-1:${ACCOUNT}:secret:${name}-AbCdEf`,
      versions: new Map(),
      stages: new Map(),
    };
    state.secrets.set(name, secret);
  }
  const id = `version-${secret.versions.size + 1}-`.padEnd(32, '0');
  secret.versions.set(id,
    typeof value === 'string' ? value : JSON.stringify(value));
  if (stage === 'AWSCURRENT' && secret.stages.has('AWSCURRENT')) {
    secret.stages.set('AWSPREVIOUS', secret.stages.get('AWSCURRENT'));
    secret.stages.delete('AWSPENDING');
  }
  secret.stages.set(stage, id);
}

/* The end of a rotation: what is pending becomes current. */
function promote(name) {
  const { stages } = state.secrets.get(name);

  stages.set('AWSPREVIOUS', stages.get('AWSCURRENT'));
  stages.set('AWSCURRENT', stages.get('AWSPENDING'));
  stages.delete('AWSPENDING');
}

function getSecret(input) {
  const asked = input.SecretId ?? '';
  const [name, secret] = [...state.secrets].find(([other, one]) =>
    other === asked || one.arn === asked ||
    one.arn.replace(/-[^-]*$/, '') === asked) ?? [asked, undefined];

  if (state.denied.has(name)) {
    throw new Refusal('AccessDeniedException',
      `User: arn:aws:sts::${ACCOUNT}:assumed-role/task/1 is not authorized ` +
      'to perform: secretsmanager:GetSecretValue on resource: ' + asked);
  }
  const stage = input.VersionStage ?? 'AWSCURRENT';
  const id = input.VersionId ?? secret?.stages.get(stage);
  if (secret === undefined || !secret.versions.has(id)) {
    throw new Refusal('ResourceNotFoundException',
      "Secrets Manager can't find the specified secret value for staging " +
      `label: ${stage}`);
  }
  return {
    ARN: secret.arn,
    CreatedDate: 1.5e9,
    Name: name,
    SecretString: secret.versions.get(id),
    VersionId: id,
    VersionStages: [...secret.stages].filter(([, one]) => one === id)
      .map(([label]) => label),
  };
}

/* ---- faults: each is used up count times */

function takeFault(where) {
  const at = state.faults.findIndex((one) =>
    (one.where ?? 'secrets') === where);

  if (at === -1) {
    return undefined;
  }
  const fault = state.faults[at];
  fault.count = (fault.count ?? 1) - 1;
  if (fault.count <= 0) {
    state.faults.splice(at, 1);
  }
  return fault;
}

function fail(fault) {
  switch (fault?.kind) {
    case undefined:
      return;
    case 'throttle':
      throw new Refusal('ThrottlingException', 'Rate exceeded', 400,
        fault.retryAfter === undefined
          ? {} : { 'Retry-After': String(fault.retryAfter) });
    case 'error':
      throw new Refusal('InternalServiceError', 'An error occurred', 500);
    case 'expired':
      throw new Refusal('ExpiredTokenException',
        'The security token included in the request is expired');
    case 'signature':
      throw new Refusal('InvalidSignatureException',
        'The request signature we calculated does not match the signature ' +
        'you provided.');
    case 'garbage':
      throw new Refusal(null, fault.text ?? '<html>no JSON</html>', 200);
    default:
      throw new Error(`no such fault: ${fault.kind}`);
  }
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/* ---- routes */

async function secretsManager(request, body) {
  const entry = { what: request.headers['x-amz-target'] ?? '', result: 'OK' };

  state.requests.push(entry);
  await sleep(state.slow);
  try {
    entry.region = await verify(request, body);
    fail(takeFault('secrets'));
    if (entry.what !== 'secretsmanager.GetSecretValue') {
      throw new Refusal('UnknownOperationException', entry.what);
    }
    const input = JSON.parse(body);
    entry.secret = input.SecretId;
    entry.stage = input.VersionStage ?? 'AWSCURRENT';
    return getSecret(input);
  } catch (error) {
    entry.result = error.type ?? String(error);
    throw error;
  }
}

async function credentials(request) {
  const entry = { what: 'credentials', result: 'OK' };

  state.requests.push(entry);
  if (state.token !== null && request.headers.authorization !== state.token) {
    entry.result = 'AccessDenied';
    throw new Refusal('AccessDenied', 'wrong Authorization', 401);
  }
  fail(takeFault('credentials'));
  return roleCredentials();
}

/*
 * {"put": {"name", "value", "stage"}}	a new version of a secret
 * {"promote": NAME}			AWSPENDING becomes AWSCURRENT
 * {"remove": NAME}, {"deny": NAME}, {"allow": NAME}
 * {"fault": {"kind", "count", "where": "secrets" | "credentials", ...}}
 *	kind: throttle (retryAfter), error, expired, signature, garbage (text)
 * {"clock": SECONDS}			our clock is ahead by that
 * {"slow": MS}, {"ttl": SECONDS}, {"token": TEXT}, {"metadata": {...}}
 * {"key": {"id", "secret", "token"}}	a key of a user
 * {"revoke": ID | true}		a key, or the task role's
 */
function control(order) {
  const acts = {
    put: putSecret,
    promote,
    remove: (name) => state.secrets.delete(name),
    deny: (name) => state.denied.add(name),
    allow: (name) => state.denied.delete(name),
    fault: (fault) => state.faults.push(fault),
    clock: (seconds) => { state.now = seconds * 1000; },
    slow: (ms) => { state.slow = ms; },
    ttl: (seconds) => { state.ttl = seconds; state.role = null; },
    token: (text) => { state.token = text; },
    metadata: (value) => { state.metadata = value; },
    key: ({ id, secret, token = null }) => newKey(id, secret, token, null),
    revoke: (id) => {
      state.keys.get(id === true ? state.role : id).revoked = true;
    },
  };

  for (const [name, value] of Object.entries(order)) {
    if (acts[name] === undefined) {
      throw new Refusal('BadControl', `no such control: ${name}`);
    }
    acts[name](value);
  }
  return {};
}

async function route(request, body) {
  const path = request.url.split('?')[0];

  if (path === '/_control' && request.method === 'POST') {
    return control(JSON.parse(body));
  }
  if (path === '/_control') {
    return { requests: state.requests, role: state.role };
  }
  if (path === '/credentials' && request.method === 'GET') {
    return credentials(request);
  }
  if (/^\/v4\/[^/]+(\/task)?$/.test(path)) {
    state.requests.push({ what: 'metadata', result: 'OK' });
    fail(takeFault('metadata'));
    return path.endsWith('/task')
      ? state.metadata.task ?? {} : state.metadata.container ?? {};
  }
  if (path === '/' && request.method === 'POST') {
    return secretsManager(request, body);
  }
  throw new Refusal('NotFound', `${request.method} ${path}`, 404);
}

async function readBody(request) {
  const parts = [];
  let bytes = 0;

  for await (const part of request) {
    bytes += part.length;
    if (bytes > BODY_BYTES_MAX) {
      throw new Refusal('RequestTooLong', 'the body is too long', 413);
    }
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

const server = createServer(async (request, response) => {
  let status = 200;
  let headers = {};
  let text;

  try {
    text = JSON.stringify(await route(request, await readBody(request)));
  } catch (error) {
    ({ status = 500, headers = {} } = error);
    text = error.type === null ? error.message
      : JSON.stringify({ __type: error.type ?? 'Bug', message: error.message });
  }
  response.writeHead(status, {
    'Content-Type': 'application/x-amz-json-1.1',
    Date: new Date(clock()).toUTCString(),
    'x-amzn-RequestId': '00000000-0000-0000-0000-000000000000',
    ...headers,
  });
  response.end(text);
});

server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  console.log(`listening ${server.address().port}`);
});
