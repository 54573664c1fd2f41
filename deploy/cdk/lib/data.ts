/*
 * What has to outlive everything else: the database, its key and secrets; and
 * the cluster with the task that makes the tables.
 */
import { Aws, CfnOutput } from 'aws-cdk-lib';
import * as ecs from 'aws-cdk-lib/aws-ecs';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as kms from 'aws-cdk-lib/aws-kms';
import * as logs from 'aws-cdk-lib/aws-logs';
import * as rds from 'aws-cdk-lib/aws-rds';
import * as secrets from 'aws-cdk-lib/aws-secretsmanager';
import type { Construct } from 'constructs';
import { alarm } from './alarms';
import type { Config } from './config';
import { DATABASE_NAME, migrateTask, type Place } from './container';
import type { NetworkStack } from './network';
import {
  allow, BooksStack, keep, policy, tagsOfName, trust,
} from './stack';

const GIB = 1024 ** 3;

export class DataStack extends BooksStack {
  readonly key: kms.CfnKey;
  readonly database: rds.CfnDBInstance;
  readonly secret: secrets.CfnSecret;
  readonly attachment: secrets.CfnSecretTargetAttachment;
  readonly cluster: ecs.CfnCluster;

  constructor(scope: Construct, config: Config, network: NetworkStack) {
    super(scope, 'Data', config, 'database, secrets, cluster, migrate task');
    this.key = this.addKey();
    this.database = this.addDatabase(network);
    this.secret = new secrets.CfnSecret(this, 'AppSecret', {
      name: `${config.prefix}/books_app`,
      description: 'The role that booksd uses',
      kmsKeyId: this.key.attrArn,
      generateSecretString: {
        secretStringTemplate: JSON.stringify({ username: 'books_app' }),
        generateStringKey: 'password',
        passwordLength: 40,
        excludePunctuation: true,
      },
    });
    keep(this.secret);
    this.attachment = new secrets.CfnSecretTargetAttachment(this,
      'AppSecretTarget', {
        secretId: this.secret.ref,
        targetId: this.database.ref,
        targetType: 'AWS::RDS::DBInstance',
      });
    this.cluster = new ecs.CfnCluster(this, 'Cluster', {
      clusterName: config.prefix,
      clusterSettings: [{ name: 'containerInsights', value: 'enhanced' }],
    });
    this.addMigration();
    this.addAlarms();
  }

  place(): Place {
    return {
      account: Aws.ACCOUNT_ID,
      region: Aws.REGION,
      partition: Aws.PARTITION,
      urlSuffix: Aws.URL_SUFFIX,
      digest: this.parameter('ImageDigest'),
      architecture: this.parameter('CpuArchitecture'),
    };
  }

  private addKey(): kms.CfnKey {
    const key = new kms.CfnKey(this, 'Key', {
      description: `${this.config.prefix}: database and secrets`,
      enableKeyRotation: true,
      pendingWindowInDays: 30,
      keyPolicy: policy({
        Effect: 'Allow',
        Principal: {
          AWS: `arn:${Aws.PARTITION}:iam::${Aws.ACCOUNT_ID}:root`,
        },
        Action: 'kms:*',
        Resource: '*',
      }),
    });
    keep(key);
    return key;
  }

  private addDatabase(network: NetworkStack): rds.CfnDBInstance {
    const { database } = this.config;
    const subnets = new rds.CfnDBSubnetGroup(this, 'Subnets', {
      dbSubnetGroupDescription: 'The data tier',
      subnetIds: network.subnetIds('data'),
    });
    const parameters = new rds.CfnDBParameterGroup(this, 'Parameters', {
      family: `postgres${database.engineMajor}`,
      description: 'Forced TLS, statistics',
      parameters: {
        'rds.force_ssl': '1',
        'max_connections': String(database.maxConnections),
        'shared_preload_libraries': 'pg_stat_statements',
        'log_min_duration_statement': '1000',
        'log_connections': '1',
        'log_lock_waits': '1',
      },
    });
    const instance = new rds.CfnDBInstance(this, 'Database', {
      dbInstanceIdentifier: this.config.prefix,
      dbName: DATABASE_NAME,
      engine: 'postgres',
      engineVersion: String(database.engineMajor),
      autoMinorVersionUpgrade: true,
      dbInstanceClass: database.instanceClass,
      allocatedStorage: String(database.storageGib),
      maxAllocatedStorage: database.storageGib * 4,
      storageType: 'gp3',
      storageEncrypted: true,
      kmsKeyId: this.key.attrArn,
      multiAz: database.multiAz,
      publiclyAccessible: false,
      port: '5432',
      masterUsername: 'postgres',
      manageMasterUserPassword: true,
      masterUserSecret: { kmsKeyId: this.key.attrArn },
      caCertificateIdentifier: 'rds-ca-rsa2048-g1',
      dbSubnetGroupName: subnets.ref,
      vpcSecurityGroups: [network.groupId('database')],
      dbParameterGroupName: parameters.ref,
      backupRetentionPeriod: database.backupDays,
      copyTagsToSnapshot: true,
      deleteAutomatedBackups: false,
      deletionProtection: this.config.production,
      enableCloudwatchLogsExports: ['postgresql', 'upgrade'],
      enablePerformanceInsights: this.config.production,
      ...(this.config.production
        ? { performanceInsightsRetentionPeriod: 7,
          performanceInsightsKmsKeyId: this.key.attrArn } : {}),
      tags: tagsOfName(this.config.prefix),
    });
    keep(instance);
    instance.cfnOptions.updateReplacePolicy = 'Snapshot' as never;
    new CfnOutput(this, 'DatabaseHost', {
      value: instance.attrEndpointAddress,
    });
    return instance;
  }

  private addMigration(): void {
    const master = this.database.attrMasterUserSecretSecretArn;
    const group = new logs.CfnLogGroup(this, 'MigrateLog', {
      logGroupName: `/${this.config.prefix}/migrate`,
      retentionInDays: 30,
    });
    const execution = new iam.CfnRole(this, 'MigrateExecution', {
      roleName: this.named('migrate-execution'),
      assumeRolePolicyDocument: trust('ecs-tasks.amazonaws.com'),
      policies: [{
        policyName: 'start',
        policyDocument: policy(
          ...startStatements(this, 'migrate'),
          allow(['secretsmanager:GetSecretValue'], master),
          decrypt(this.key.attrArn)),
      }],
    });
    const role = new iam.CfnRole(this, 'MigrateTaskRole', {
      roleName: this.named('migrate-task'),
      assumeRolePolicyDocument: trust('ecs-tasks.amazonaws.com'),
    });
    const definition = new ecs.CfnTaskDefinition(this, 'Migrate',
      migrateTask(this.config, this.place(), master,
        this.database.attrEndpointAddress) as ecs.CfnTaskDefinitionProps);
    for (const before of [group, execution, role])
      definition.addResourceDependency(before);
  }

  private addAlarms(): void {
    const { database } = this.config;
    const dimensions = { DBInstanceIdentifier: this.config.prefix };
    const add = (
      id: string, metricName: string, threshold: number,
      above: boolean): void => {
      alarm(this, id, {
        namespace: 'AWS/RDS', metricName, dimensions, threshold, above,
        statistic: 'Average', periods: 5,
      });
    };
    add('DatabaseCpu', 'CPUUtilization', 80, true);
    add('DatabaseStorage', 'FreeStorageSpace', 2 * GIB, false);
    add('DatabaseMemory', 'FreeableMemory', GIB / 10, false);
    add('DatabaseConnections', 'DatabaseConnections',
      Math.floor(database.maxConnections * 0.85), true);
  }
}

/** What ECS itself needs to start a task. */
export function startStatements(stack: BooksStack, log: string) {
  return [
    allow(['ecr:GetAuthorizationToken'], '*'),
    allow(['ecr:BatchCheckLayerAvailability', 'ecr:BatchGetImage',
      'ecr:GetDownloadUrlForLayer'],
    stack.arn('ecr', `repository/${stack.config.prefix}`)),
    allow(['logs:CreateLogStream', 'logs:PutLogEvents'],
      stack.arn('logs', `log-group:/${stack.config.prefix}/${log}:*`)),
  ];
}

export function decrypt(key: string) {
  return allow(['kms:Decrypt'], key, {
    StringEquals: {
      'kms:ViaService': `secretsmanager.${Aws.REGION}.${Aws.URL_SUFFIX}`,
    },
  });
}
