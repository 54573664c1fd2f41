/*
 * Requirements: who may do what, by simulation of the policies.
 */
import assert from 'node:assert/strict';
import { runSimulation } from '@cloud-copilot/iam-simulate';
import { check } from './check';
import { ACCOUNT, all, list, type Model, one, policies, REGION } from './model';

type Context = Record<string, string>;

async function may(
  model: Model, stack: string, role: string, action: string, resource: string,
  context: Context = {}): Promise<boolean> {
  const found = one(model, stack, role);
  const answer = await runSimulation({
    request: {
      action, principal: `arn:aws:iam::${ACCOUNT}:role/${role}`,
      resource: { resource, accountId: ACCOUNT },
      contextVariables: context,
    },
    // Keys trust their account, so that its policies count.
    ...(action.startsWith('kms:')
      ? { resourcePolicy: one(model, 'Data', 'Key').props.KeyPolicy } : {}),
    identityPolicies: policies(found).map((policy, index) =>
      ({ name: `${role}${index}`, policy })),
    serviceControlPolicies: [],
    resourceControlPolicies: [],
  } as Parameters<typeof runSimulation>[0], {});
  if (answer.resultType === 'error')
    throw new Error(JSON.stringify(answer));
  return answer.overallResult === 'Allowed';
}

function arn(service: string, resource: string): string {
  return `arn:aws:${service}:${REGION}:${ACCOUNT}:${resource}`;
}

function secret(name: string): string {
  return arn('secretsmanager', `secret:${name}-AbCdEf`);
}

export const ACCESS_CHECKS = [
  check('the tasks read their own secret and no other', async (model) => {
    const reader = model.config.task.secret === 'client'
      ? 'TaskRole' : 'Execution';
    const other = reader === 'TaskRole' ? 'Execution' : 'TaskRole';
    const own = secret(`${model.config.prefix}/books_app`);
    const read = 'secretsmanager:GetSecretValue';
    assert.equal(await may(model, 'Service', reader, read, own), true);
    assert.equal(await may(model, 'Service', other, read, own), false);
    assert.equal(
      await may(model, 'Service', reader, read, secret('other')), false);
    assert.equal(
      await may(model, 'Service', reader, read, secret('rds!db-1234')), false);
    assert.equal(await may(model, 'Service', reader,
      'secretsmanager:PutSecretValue', own), false);
  }),

  check('the key opens only what Secrets Manager asks', async (model) => {
    const key = arn('kms', 'key/DataKey');
    const reader = model.config.task.secret === 'client'
      ? 'TaskRole' : 'Execution';
    for (const [stack, role] of
      [['Service', reader], ['Data', 'MigrateExecution']]) {
      const ask = (via: string, which: string) => may(model, stack, role,
        'kms:Decrypt', which, { 'kms:ViaService': via });
      assert.equal(
        await ask(`secretsmanager.${REGION}.amazonaws.com`, key), true);
      assert.equal(await ask(`s3.${REGION}.amazonaws.com`, key), false);
      assert.equal(await ask(`secretsmanager.${REGION}.amazonaws.com`,
        arn('kms', 'key/other')), false);
    }
  }),

  check('only the migration reads the master secret', async (model) => {
    const read = 'secretsmanager:GetSecretValue';
    assert.equal(await may(model, 'Data', 'MigrateExecution', read,
      secret('rds!db-1234')), true);
    assert.equal(await may(model, 'Data', 'MigrateExecution', read,
      secret(`${model.config.prefix}/books_app`)), false);
  }),

  check('a rollback works while an alarm fires, a release does not',
    async (model) => {
      const { prefix } = model.config;
      const group = arn('codedeploy',
        `deploymentgroup:${prefix}-app/${prefix}-group`);
      const update = 'codedeploy:UpdateDeploymentGroup';
      assert.equal(
        await may(model, 'Registry', 'RollbackRole', update, group), true);
      assert.equal(
        await may(model, 'Registry', 'ReleaseRole', update, group), false);
      assert.equal(await may(model, 'Registry', 'RollbackRole', update,
        arn('codedeploy', 'deploymentgroup:other/other')), false);
    }),

  check('deployers pass only the roles of the tasks', async (model) => {
    const { prefix } = model.config;
    const pass = (deployer: string, name: string, service: string) =>
      may(model, 'Registry', deployer, 'iam:PassRole',
        `arn:aws:iam::${ACCOUNT}:role/${name}`,
        { 'iam:PassedToService': service });
    const tasks = 'ecs-tasks.amazonaws.com';
    assert.equal(await pass('ReleaseRole', `${prefix}-task`, tasks), true);
    assert.equal(
      await pass('ReleaseRole', `${prefix}-migrate-task`, tasks), true);
    assert.equal(
      await pass('RollbackRole', `${prefix}-migrate-task`, tasks), false);
    assert.equal(await pass('ReleaseRole', 'admin', tasks), false);
    assert.equal(await pass('ReleaseRole', `${prefix}-task`,
      'lambda.amazonaws.com'), false);
  }),

  check('a release pushes to one repository, a rollback to none',
    async (model) => {
      const own = arn('ecr', `repository/${model.config.prefix}`);
      const push = 'ecr:PutImage';
      assert.equal(
        await may(model, 'Registry', 'ReleaseRole', push, own), true);
      assert.equal(await may(model, 'Registry', 'ReleaseRole', push,
        arn('ecr', 'repository/other')), false);
      assert.equal(
        await may(model, 'Registry', 'RollbackRole', push, own), false);
    }),

  check('GitHub takes a role only from one environment', (model) => {
    for (const id of ['ReleaseRole', 'RollbackRole']) {
      const [statement] = one(model, 'Registry', id)
        .props.AssumeRolePolicyDocument.Statement;
      const host = 'token.actions.githubusercontent.com';
      assert.deepEqual(statement.Condition, {
        StringEquals: {
          [`${host}:aud`]: 'sts.amazonaws.com',
          [`${host}:sub`]: 'repo:<GitHubRepository>:environment:' +
            model.config.environment,
        },
      });
    }
    assert.equal(all(model, 'OIDCProvider').length,
      model.config.oidcProvider === 'create' ? 1 : 0);
  }),

  check('no policy of a role has an action with a star', (model) => {
    for (const found of all(model, 'IAM::Role'))
      for (const { Statement: statements } of policies(found))
        for (const statement of statements) {
          assert.equal(statement.Effect, 'Allow');
          for (const action of list<string>(statement.Action)) {
            assert.doesNotMatch(action, /\*/, found.id);
            assert.notEqual(action, 'ecs:UpdateService');
          }
        }
  }),

  check('the hook reports to this deployment group only', (model) => {
    assert.equal(all(model, 'Lambda::Function').length,
      model.config.hook ? 1 : 0);
    if (!model.config.hook)
      return;
    // The simulation knows no resource for this action; CodeDeploy does.
    const { prefix } = model.config;
    const put = policies(one(model, 'Service', 'HookRole'))
      .flatMap((policy) => policy.Statement).filter((statement) =>
        list<string>(statement.Action).some((a) => a.startsWith('codedeploy')));
    assert.deepEqual(put, [{
      Effect: 'Allow',
      Action: ['codedeploy:PutLifecycleEventHookExecutionStatus'],
      Resource: arn('codedeploy',
        `deploymentgroup:${prefix}-app/${prefix}-group`),
    }]);
    const { props } = one(model, 'Service', 'Hook');
    assert.ok(props.Code.ZipFile.length > 0 && props.Code.ZipFile.length < 4096);
    assert.deepEqual(props.VpcConfig, {
      SubnetIds: ['Network.AppA', 'Network.AppB'],
      SecurityGroupIds: ['Network.Hook'],
    });
  }),
];
