/*
 * A stack of its own, because it may come only when books_app is there: the
 * first rotation logs in as it.  Secrets Manager's own function does the work;
 * CloudFormation makes it in a nested stack (CAPABILITY_AUTO_EXPAND).
 */
import { Fn } from 'aws-cdk-lib';
import * as secrets from 'aws-cdk-lib/aws-secretsmanager';
import type { Construct } from 'constructs';
import type { Config } from './config';
import type { DataStack } from './data';
import type { NetworkStack } from './network';
import { BooksStack } from './stack';

export class RotationStack extends BooksStack {
  constructor(
    scope: Construct, config: Config, network: NetworkStack, data: DataStack) {
    super(scope, 'Rotation', config, 'rotation of the password of books_app');
    this.addTransform('AWS::SecretsManager-2024-09-16');
    new secrets.CfnRotationSchedule(this, 'Schedule', {
      secretId: data.secret.ref,
      rotateImmediatelyOnUpdate: false,
      rotationRules: {
        scheduleExpression: 'cron(0 3 1 * ? *)',
        duration: '2h',
      },
      hostedRotationLambda: {
        rotationType: 'PostgreSQLSingleUser',
        rotationLambdaName: this.named('rotation'),
        kmsKeyArn: data.key.attrArn,
        vpcSecurityGroupIds: network.groupId('rotation'),
        vpcSubnetIds: Fn.join(',', network.subnetIds('app')),
        excludeCharacters: '"\'\\/@:;% ',
      },
    });
  }
}
