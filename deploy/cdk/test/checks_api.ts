/*
 * Requirements: the door to the world, and what is seen and told.
 */
import assert from 'node:assert/strict';
import { capacity, GATEWAY_RATE_MAX } from '../lib/config';
import { EMF } from '../lib/container';
import { check } from './check';
import { all, type Model, one } from './model';
import { booksdRoutes, find } from './routes';

const INTEGRATION = 'x-amazon-apigateway-integration';
const PUBLIC = ['/', '/books', '/books/{isbn}'];
const HIDDEN = ['/livez', '/readyz', '/health', '/actuator/health',
  '/actuator/anything', '/metrics'];
const BOOKSD_ITSELF = ['/nowhere', '/books/', '/books/1/2', '/books/1/',
  '/bookshelf', '/livez/more'];

function body(model: Model): any {
  return one(model, 'Api', 'Api').props.Body;
}

function integrations(model: Model): [string, string, any][] {
  return Object.entries<any>(body(model).paths).flatMap(([path, item]) =>
    Object.entries<any>(item).map(([method, it]) =>
      [path, method, it[INTEGRATION]] as [string, string, any]));
}

export const API_CHECKS = [
  check('booksd answers its routes, wrong verbs and unknown paths', (model) => {
    const api = body(model);
    const routes = booksdRoutes();
    assert.ok(routes.length >= 7);
    const proxied = (method: string, path: string): void => {
      const it = find(api, method, path)?.[INTEGRATION];
      assert.equal(it?.type, 'http_proxy', `${method} ${path}`);
    };
    for (const { path, methods } of routes) {
      assert.ok(PUBLIC.includes(path) || HIDDEN.includes(path),
        `${path} is neither public nor hidden`);
      if (PUBLIC.includes(path))
        for (const method of [...methods, 'PATCH'])
          proxied(method, path.replace('{isbn}', '9780201134476'));
    }
    for (const path of BOOKSD_ITSELF)
      proxied('GET', path);
  }),

  check('what administrators ask is not for the world', (model) => {
    for (const path of HIDDEN)
      for (const method of ['GET', 'POST', 'PATCH']) {
        const it = find(body(model), method, path)?.[INTEGRATION];
        assert.equal(it?.type, 'mock', `${method} ${path}`);
        assert.deepEqual(it.responses, { default: { statusCode: '404' } });
        assert.match(it.requestTemplates['application/json'], /404/);
      }
  }),

  check('paths reach booksd as they came', (model) => {
    for (const [path, method, it] of integrations(model)) {
      if (it.type !== 'http_proxy')
        continue;
      assert.equal(new URL(it.uri.replace('<CertificateName>', 'a.example'))
        .pathname.replaceAll('%7B', '{').replaceAll('%7D', '}'),
      path.replaceAll('+}', '}'));
      assert.equal(it.httpMethod, method === 'get' ? 'GET' : 'ANY');
      for (const [, name] of path.matchAll(/{([^}+]+)\+?}/g))
        assert.equal(
          it.requestParameters[`integration.request.path.${name}`],
          `method.request.path.${name}`);
    }
    assert.deepEqual(body(model)['x-amazon-apigateway-binary-media-types'],
      ['*/*']);
  }),

  check('the gateway verifies who it talks to', (model) => {
    for (const [path, , it] of integrations(model)) {
      if (it.type !== 'http_proxy')
        continue;
      assert.match(it.uri, /^https:\/\/<CertificateName>\//, path);
      assert.deepEqual(it.tlsConfig, {
        insecureSkipVerification: model.config.api.certificate === 'imported',
      });
      assert.ok(!model.config.production ||
        !it.tlsConfig.insecureSkipVerification);
    }
  }),

  check('the private link is that of the environment', (model) => {
    const v1 = model.config.api.link === 'v1';
    for (const [, , it] of integrations(model)) {
      if (it.type !== 'http_proxy')
        continue;
      assert.equal(it.connectionType, 'VPC_LINK');
      assert.equal(it.connectionId, v1 ? 'Api.Link' : 'Api.LinkV2');
      assert.equal(it.integrationTarget, v1 ? undefined : 'Service.Alb');
    }
    if (v1)
      assert.deepEqual(one(model, 'Api', 'Link').props.TargetArns,
        ['Service.Nlb']);
  }),

  check('only the list of books is streamed, for 900 s', (model) => {
    for (const [path, method, it] of integrations(model)) {
      const stream = path === '/books' && method === 'get';
      if (it.type !== 'http_proxy')
        continue;
      assert.equal(it.timeoutInMillis, stream ? 900_000 : 10_000, path);
      assert.equal(it.responseTransferMode, stream ? 'STREAM' : undefined);
    }
  }),

  check('throttling admits what the tasks can serve', (model) => {
    const [settings] = one(model, 'Api', 'Stage').props.MethodSettings;
    const max = one(model, 'Service', 'Scaling').props.MaxCapacity;
    const wanted = Math.min(GATEWAY_RATE_MAX,
      capacity(model.config) / model.config.scaling.max * max);
    assert.ok(settings.ThrottlingRateLimit >= wanted);
    assert.ok(settings.ThrottlingBurstLimit >= settings.ThrottlingRateLimit);
  }),

  check('keys and users are asked for only where they are wanted', (model) => {
    const { keys, cognito } = model.config.api;
    assert.equal(all(model, 'UsagePlan').length, keys ? 1 : 0);
    assert.equal(all(model, 'UserPool').length, cognito ? 1 : 0);
    for (const item of Object.values<any>(body(model).paths))
      for (const method of Object.values<any>(item))
        if (method[INTEGRATION].type === 'http_proxy')
          assert.deepEqual(Object.keys(method.security?.[0] ?? {}),
            [...(keys ? ['apiKey'] : []), ...(cognito ? ['cognito'] : [])]);
  }),

  check('the firewall blocks, but large bodies it only counts', (model) => {
    const [rule] = one(model, 'Api', 'Firewall').props.Rules;
    const group = rule.Statement.ManagedRuleGroupStatement;
    assert.equal(group.Name, 'AWSManagedRulesCommonRuleSet');
    assert.deepEqual(rule.OverrideAction, { None: {} });
    assert.deepEqual(group.RuleActionOverrides,
      [{ Name: 'SizeRestrictions_BODY', ActionToUse: { Count: {} } }]);
    assert.match(one(model, 'Api', 'FirewallAssociation').props.ResourceArn,
      /\/restapis\/Api\.Api\/stages\/prod$/);
  }),

  check('requests are logged, their contents are not', (model) => {
    const { props } = one(model, 'Api', 'Stage');
    assert.equal(props.AccessLogSetting.DestinationArn, 'Api.AccessLog');
    assert.equal(props.MethodSettings[0].DataTraceEnabled, false);
    assert.equal(all(model, 'ApiGateway::Account').length,
      model.config.api.accountRole ? 1 : 0);
  }),

  check('a custom domain takes TLS 1.2 and is the only door', (model) => {
    const { domain } = model.config.api;
    assert.equal(all(model, 'ApiGateway::DomainName').length, domain ? 1 : 0);
    assert.equal(one(model, 'Api', 'Api').props.DisableExecuteApiEndpoint,
      domain);
    for (const { props } of all(model, 'ApiGateway::DomainName'))
      assert.equal(props.SecurityPolicy, 'TLS_1_2');
  }),

  check('no data is no alarm', (model) => {
    for (const { id, props } of all(model, 'CloudWatch::Alarm'))
      assert.equal(props.TreatMissingData, 'notBreaching', id);
  }),

  check('one alarm stands for all of them, and is told', (model) => {
    const { props } = one(model, 'Ops', 'Composite');
    const made = all(model, 'CloudWatch::Alarm').map((a) => a.props.AlarmName);
    assert.deepEqual([...props.AlarmRule.matchAll(/ALARM\("([^"]+)"\)/g)]
      .map(([, name]) => name).sort(), made.sort());
    assert.deepEqual(props.AlarmActions,
      [one(model, 'Ops', 'Channel').props.SnsTopicArns[0]]);
  }),

  check('the topic is encrypted and takes TLS only', (model) => {
    assert.equal(one(model, 'Ops', 'Topic').props.KmsMasterKeyId,
      'arn:aws:kms:us-east-1:123456789012:key/OpsKey');
    const [publish, deny] = one(model, 'Ops', 'TopicPolicy')
      .props.PolicyDocument.Statement;
    assert.deepEqual(publish.Condition,
      { StringEquals: { 'aws:SourceAccount': '123456789012' } });
    assert.equal(deny.Effect, 'Deny');
  }),

  check('deployments are told: start, success, failure', (model) => {
    assert.deepEqual(one(model, 'Ops', 'Deployments').props.EventTypeIds,
      ['started', 'succeeded', 'failed'].map((state) =>
        `codedeploy-application-deployment-${state}`));
  }),

  check('one dashboard shows booksd\'s own metrics', (model) => {
    const found = all(model, 'Dashboard');
    assert.equal(found.length, 1);
    const { widgets } = JSON.parse(found[0].props.DashboardBody);
    const own = widgets.flatMap((w: any) => w.properties.metrics)
      .filter((metric: any) => metric[0] === EMF.namespace);
    assert.ok(own.length >= 4);
    for (const metric of own)
      assert.deepEqual(metric.slice(2, 6), ['Cluster', model.config.prefix,
        'Service', `${model.config.prefix}-service`]);
  }),
];
