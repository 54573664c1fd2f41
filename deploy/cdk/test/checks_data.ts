/*
 * Requirements: what is kept, who may read it, and the order of things.
 */
import assert from 'node:assert/strict';
import { ORDER } from '../lib/app';
import { CONNECTIONS_RESERVED } from '../lib/config';
import { print } from '../lib/files';
import { check } from './check';
import { all, one } from './model';

const TEMPLATE_BYTES_MAX = 51_200;
const STATEFUL = ['ECR::Repository', 'RDS::DBInstance', 'SecretsManager::Secret',
  'S3::Bucket', 'UserPool', 'ApiGateway::Account'];

function imports(value: any): string[] {
  if (value === null || typeof value !== 'object')
    return [];
  return 'Fn::ImportValue' in value ? [value['Fn::ImportValue']]
    : Object.values(value).flatMap(imports);
}

export const DATA_CHECKS = [
  check('a stack needs only what was deployed before it', (model) => {
    const ids = Object.keys(model.stacks);
    assert.deepEqual(ids, ORDER.filter((id) => ids.includes(id)));
    for (const [index, id] of ids.entries()) {
      const before = ids.slice(0, index).map((other) =>
        `${model.config.prefix}-${other.toLowerCase()}:`);
      for (const name of imports(model.stacks[id]))
        assert.ok(before.some((start) => name.startsWith(start)),
          `${id} needs ${name}`);
    }
    assert.deepEqual(imports(model.stacks['Registry']), []);
    assert.deepEqual(imports(model.stacks['Ops']), []);
  }),

  check('no parameter has a default', (model) => {
    for (const [id, template] of Object.entries(model.stacks))
      for (const [name, it] of Object.entries(template.Parameters ?? {}))
        assert.equal(it.Default, undefined, `${id} ${name}`);
  }),

  check('templates fit, and bring no assets, lookups or rules', (model) => {
    for (const [id, template] of Object.entries(model.stacks)) {
      const text = print(template);
      assert.ok(Buffer.byteLength(text) < TEMPLATE_BYTES_MAX, id);
      assert.doesNotMatch(text, /cdk-hnb659fds|AssetParameters|dummy|BootstrapVersion/);
      assert.doesNotMatch(text, /"Fn::GetAZs"|us-east-1/);
    }
  }),

  check('what holds data stays when its stack goes', (model) => {
    for (const type of STATEFUL)
      for (const { id, resource } of all(model, type))
        assert.equal(resource.DeletionPolicy, 'RetainExceptOnCreate', id);
  }),

  check('the database is private, encrypted, backed up, by major', (model) => {
    const { database } = model.config;
    const { props } = one(model, 'Data', 'Database');
    assert.equal(props.StorageEncrypted, true);
    assert.equal(props.PubliclyAccessible, false);
    assert.equal(props.EngineVersion, String(database.engineMajor));
    assert.match(props.EngineVersion, /^\d+$/);
    assert.equal(props.MultiAZ, database.multiAz);
    assert.equal(props.BackupRetentionPeriod, database.backupDays);
    assert.equal(props.DeletionProtection, model.config.production);
    assert.equal(props.ManageMasterUserPassword, true);
    assert.match(props.MasterUserSecret.KmsKeyId, /^arn:aws:kms:/);
    assert.deepEqual(props.VPCSecurityGroups, ['Network.Database']);
  }),

  check('the database takes nothing but TLS', (model) => {
    const { props } = one(model, 'Data', 'Parameters');
    assert.equal(props.Parameters['rds.force_ssl'], '1');
    assert.equal(props.Family, `postgres${model.config.database.engineMajor}`);
  }),

  check('blue and green at full scale fit max_connections', (model) => {
    const settings: { Name: string; Value: string }[] =
      one(model, 'Service', 'Task').props.ContainerDefinitions[0].Environment;
    const pool = settings.find(
      ({ Name }) => Name === 'BOOKS_DATABASE_CONNECTIONS')!.Value;
    const max = one(model, 'Service', 'Scaling').props.MaxCapacity;
    const worst = max * 2 * (Number(pool) + 1) + CONNECTIONS_RESERVED;
    const limit = Number(one(model, 'Data', 'Parameters')
      .props.Parameters['max_connections']);
    assert.ok(worst <= limit, `${worst} > ${limit}`);
  }),

  check('the application has a secret of its own', (model) => {
    const { props } = one(model, 'Data', 'AppSecret');
    assert.equal(props.Name, `${model.config.prefix}/books_app`);
    assert.match(props.KmsKeyId, /^arn:aws:kms:/);
    assert.match(props.GenerateSecretString.SecretStringTemplate, /books_app/);
    assert.equal(one(model, 'Data', 'AppSecretTarget').props.TargetId,
      'Data.Database');
  }),

  check('rotation waits for its day, inside the network', (model) => {
    assert.equal(model.stacks['Rotation'].Transform,
      'AWS::SecretsManager-2024-09-16');
    const { props } = one(model, 'Rotation', 'Schedule');
    assert.equal(props.RotateImmediatelyOnUpdate, false);
    assert.equal(props.HostedRotationLambda.RotationType,
      'PostgreSQLSingleUser');
    assert.equal(props.HostedRotationLambda.VpcSecurityGroupIds,
      'Network.Rotation');
    assert.equal(props.HostedRotationLambda.VpcSubnetIds,
      'Network.AppA,Network.AppB');
  }),

  check('images are immutable, scanned, encrypted and expire', (model) => {
    const { props } = one(model, 'Registry', 'Repository');
    assert.equal(props.ImageTagMutability, 'IMMUTABLE');
    assert.equal(props.ImageScanningConfiguration.ScanOnPush, true);
    assert.equal(props.EncryptionConfiguration.EncryptionType, 'KMS');
    assert.equal(JSON.parse(props.LifecyclePolicy.LifecyclePolicyText)
      .rules[0].action.type, 'expire');
  }),

  check('keys rotate', (model) => {
    for (const { id, props } of all(model, 'KMS::Key'))
      assert.equal(props.EnableKeyRotation, true, id);
  }),

  check('logs are kept for 30 days', (model) => {
    for (const { id, props } of all(model, 'LogGroup'))
      assert.equal(props.RetentionInDays, 30, id);
  }),
];
