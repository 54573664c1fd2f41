/*
 * The API as one OpenAPI body: the only form in which CloudFormation takes
 * tlsConfig.
 *
 * booksd knows its routes and answers 404 and 405 itself, in its own words; so
 * all paths and methods are passed on.  What administrators and load balancers
 * ask is not for the world: a mock answers it.
 */
import type { Config } from './config';

export interface Backend {
  readonly host: string;
  readonly connectionId: string;
  /** V2: the ALB itself. */
  readonly target?: string;
  readonly authorizer?: string;
}

const TIMEOUT_MS = 10_000;
/* GET /books: buffered answers stop at 10 MB, streamed ones do not. */
const STREAM_TIMEOUT_MS = 900_000;

const HIDDEN = ['/livez', '/readyz', '/health', '/actuator/{proxy+}',
  '/metrics'];
const PROXIED = ['/', '/books', '/books/{isbn}', '/books/{isbn}/{proxy+}',
  '/{proxy+}'];

type Json = Record<string, unknown>;

function variables(path: string): string[] {
  return [...path.matchAll(/{([^}+]+)\+?}/g)].map(([, name]) => name);
}

function proxy(
  config: Config, backend: Backend, path: string, stream: boolean,
  method: string): Json {
  const names = variables(path);
  return {
    ...(names.length > 0 ? {
      parameters: names.map((name) =>
        ({ name, in: 'path', required: true, schema: { type: 'string' } })),
    } : {}),
    responses: { default: { description: 'As booksd answers it' } },
    ...security(config, backend),
    'x-amazon-apigateway-integration': {
      type: 'http_proxy',
      httpMethod: method,
      uri: `https://${backend.host}${path.replaceAll('+}', '}')}`,
      connectionType: 'VPC_LINK',
      connectionId: backend.connectionId,
      ...(backend.target !== undefined
        ? { integrationTarget: backend.target } : {}),
      passthroughBehavior: 'when_no_match',
      ...(names.length > 0 ? {
        requestParameters: Object.fromEntries(names.map((name) =>
          [`integration.request.path.${name}`,
            `method.request.path.${name}`])),
      } : {}),
      timeoutInMillis: stream ? STREAM_TIMEOUT_MS : TIMEOUT_MS,
      ...(stream ? { responseTransferMode: 'STREAM' } : {}),
      tlsConfig: {
        insecureSkipVerification: config.api.certificate === 'imported',
      },
    },
  };
}

function security(config: Config, backend: Backend): Json {
  const list: Json[] = [];
  if (config.api.keys)
    list.push({ apiKey: [] });
  if (backend.authorizer !== undefined)
    list.push({ cognito: [] });
  // One object: both are asked for.
  return list.length > 0 ? { security: [Object.assign({}, ...list)] } : {};
}

function hidden(path: string): Json {
  return {
    'x-amazon-apigateway-any-method': {
      parameters: variables(path).map((name) =>
        ({ name, in: 'path', required: true, schema: { type: 'string' } })),
      responses: { 404: { description: 'Not for the world' } },
      'x-amazon-apigateway-integration': {
        type: 'mock',
        passthroughBehavior: 'never',
        // With binary types the template is not applied to bytes.
        contentHandling: 'CONVERT_TO_TEXT',
        requestTemplates: { 'application/json': '{"statusCode": 404}' },
        responses: { default: { statusCode: '404' } },
      },
    },
  };
}

export function openapi(config: Config, backend: Backend): Json {
  const paths: Json = {};
  for (const path of PROXIED)
    paths[path] = {
      'x-amazon-apigateway-any-method':
        proxy(config, backend, path, false, 'ANY'),
      ...(path === '/books'
        ? { get: proxy(config, backend, path, true, 'GET') } : {}),
    };
  for (const path of HIDDEN)
    paths[path] = hidden(path);
  return {
    openapi: '3.0.1',
    info: { title: config.prefix, version: '1' },
    paths,
    // Bytes go through as they are.
    'x-amazon-apigateway-binary-media-types': ['*/*'],
    components: {
      securitySchemes: {
        ...(config.api.keys ? {
          apiKey: { type: 'apiKey', name: 'x-api-key', in: 'header' },
        } : {}),
        ...(backend.authorizer !== undefined ? {
          cognito: {
            type: 'apiKey', name: 'Authorization', in: 'header',
            'x-amazon-apigateway-authtype': 'cognito_user_pools',
            'x-amazon-apigateway-authorizer': {
              type: 'cognito_user_pools',
              providerARNs: [backend.authorizer],
            },
          },
        } : {}),
      },
    },
  };
}
