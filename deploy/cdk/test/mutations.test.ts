/*
 * Does each requirement see its own breach, and only that one?  One property
 * of one template is changed, all requirements run again on the changed
 * model, and exactly the named one has to complain.
 *
 * With MUTATION_TABLE=1 the table of deploy/README.md is printed.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { ENVIRONMENTS } from '../lib/environments';
import { CHECKS } from './checks';
import { clone, type Model, model } from './model';

interface Mutation {
  readonly at: string;
  readonly what: string;
  readonly caught: string;
  readonly apply: (stacks: Record<string, any>) => void;
}

/** Stack, resource and properties by a path with dots. */
function set(at: string, value: unknown, caught: string): Mutation {
  return {
    at, caught,
    what: value === undefined ? 'removed' : JSON.stringify(value),
    apply: (stacks) => {
      const [stack, id, ...path] = at.split('.');
      const last = path.pop()!;
      let here = stacks[stack].Resources[id].Properties;
      for (const key of path)
        here = here[key];
      assert.ok(last in here || value !== undefined, at);
      if (value === undefined)
        delete here[last];
      else
        here[last] = value;
    },
  };
}

const MUTATIONS: readonly Mutation[] = [
  // Registry
  set('Registry.Repository.ImageTagMutability', 'MUTABLE',
    'images are immutable, scanned, encrypted and expire'),
  set('Registry.ReleaseRole.AssumeRolePolicyDocument.Statement.0.Condition.' +
    'StringEquals', {}, 'GitHub takes a role only from one environment'),
  set('Registry.RollbackRole.Policies.0.PolicyDocument.Statement.9.Action',
    'codedeploy:GetDeploymentInstance',
    'a rollback works while an alarm fires, a release does not'),
  set('Registry.ReleaseRole.Policies.0.PolicyDocument.Statement.6.Resource',
    '*', 'deployers pass only the roles of the tasks'),
  // Network
  set('Network.AlbToTask.ToPort', 65535,
    'the rules of the groups are the hops and no others'),
  set('Network.Task.SecurityGroupEgress', [{
    CidrIp: '0.0.0.0/' + '1', IpProtocol: '-1' }],
  'no group has the rule to everywhere that AWS adds'),
  set('Network.EndpointEcrApi.PolicyDocument.Statement.1.Condition', undefined,
    'endpoint policies name account, actions and resources'),
  set('Network.EndpointSecrets.PolicyDocument.Statement.0.Resource',
    'arn:aws:secretsmanager:*:*:secret:other-??????',
    'the secrets endpoint knows secrets, not roles'),
  set('Network.EndpointLogs.PrivateDnsEnabled', false,
    'there is an endpoint for each service that is called'),
  // Data
  set('Data.Database.StorageEncrypted', false,
    'the database is private, encrypted, backed up, by major'),
  set('Data.Parameters.Parameters', {
    'rds.force_ssl': '0', 'max_connections': '200' },
  'the database takes nothing but TLS'),
  set('Data.MigrateExecution.Policies.0.PolicyDocument.Statement.4.Condition',
    undefined, 'the key opens only what Secrets Manager asks'),
  // Rotation
  set('Rotation.Schedule.RotateImmediatelyOnUpdate', true,
    'rotation waits for its day, inside the network'),
  // Service
  set('Service.TaskRole.Policies.0.PolicyDocument.Statement.0.Resource', '*',
    'the tasks read their own secret and no other'),
  set('Service.HookRole.Policies.0.PolicyDocument.Statement.0.Resource', '*',
    'the hook reports to this deployment group only'),
  set('Service.CodeDeployRole.Policies.0.PolicyDocument.Statement.0.Action',
    ['ecs:*'], 'no policy of a role has an action with a star'),
  set('Service.Service.DesiredCount', 2,
    'CodeDeploy and the scaling own the service'),
  set('Service.Service.NetworkConfiguration.AwsvpcConfiguration.' +
    'AssignPublicIp', 'ENABLED', 'tasks have no public address and one group'),
  set('Service.Task.ContainerDefinitions.0.ReadonlyRootFilesystem', false,
    'containers have no rights, no shell and nothing to write'),
  set('Service.Task.ContainerDefinitions.0.StopTimeout', 30,
    'the drain ends before ECS kills'),
  set('Service.Group.DeploymentConfigName', 'CodeDeployDefault.ECSAllAtOnce',
    'a deployment is a canary'),
  set('Service.Group.AutoRollbackConfiguration.Events',
    ['DEPLOYMENT_FAILURE'],
    'a deployment rolls back when it fails or an alarm fires'),
  set('Service.Group.AlarmConfiguration.Enabled', false,
    'a deployment rolls back when it fails or an alarm fires'),
  set('Service.ScaleBusy.TargetTrackingScalingPolicyConfiguration.' +
    'CustomizedMetricSpecification.Dimensions.1.Name', 'Worker',
  'scaling follows the CPU and how busy booksd says it is'),
  set('Service.Scaling.MinCapacity', 0, 'scaling keeps its bounds'),
  set('Data.Parameters.Parameters.max_connections', '50',
    'blue and green at full scale fit max_connections'),
  set('Service.Green.HealthCheckPath', '/livez',
    'two target groups, alike, asked for readiness'),
  set('Service.Test.Protocol', 'HTTP',
    'both listeners speak TLS with the given certificate'),
  set('Service.BlueSlow.TreatMissingData', 'breaching', 'no data is no alarm'),
  // Api
  set('Api.Api.Body.paths./books.get.x-amazon-apigateway-integration.' +
    'responseTransferMode', undefined,
  'only the list of books is streamed, for 900 s'),
  set('Api.Api.Body.paths./readyz.x-amazon-apigateway-any-method.' +
    'x-amazon-apigateway-integration.type', 'aws_proxy',
  'what administrators ask is not for the world'),
  set('Api.Api.Body.paths./{proxy+}.x-amazon-apigateway-any-method.' +
    'x-amazon-apigateway-integration.tlsConfig', {
    insecureSkipVerification: true },
  'the gateway verifies who it talks to'),
  set('Api.Stage.MethodSettings.0.ThrottlingRateLimit', 10,
    'throttling admits what the tasks can serve'),
  set('Api.Firewall.Rules.0.OverrideAction', { Count: {} },
    'the firewall blocks, but large bodies it only counts'),
  // Ops
  set('Ops.Topic.KmsMasterKeyId', undefined,
    'the topic is encrypted and takes TLS only'),
  set('Ops.Deployments.EventTypeIds', [],
    'deployments are told: start, success, failure'),
];

async function complaints(changed: Model): Promise<string[]> {
  const found: string[] = [];
  for (const { name, run } of CHECKS)
    try {
      await run(changed);
    } catch {
      found.push(name);
    }
  return found;
}

const production = model(ENVIRONMENTS.find((c) => c.production)!);

for (const { at, what, caught, apply } of MUTATIONS) {
  if (process.env['MUTATION_TABLE'])
    console.error(`| \`${at}\` | ${what} | ${caught} |`);
  test(`${at}: ${what}`, async () => {
    const changed = clone(production);
    apply(changed.stacks);
    assert.deepEqual(await complaints(changed), [caught]);
  });
}

test('the unchanged model has no complaint', async () => {
  assert.deepEqual(await complaints(production), []);
});
