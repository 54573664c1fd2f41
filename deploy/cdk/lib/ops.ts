/*
 * Who is told, and what can be seen: a topic with a key of its own, a channel
 * of Amazon Q Developer in chat applications (formerly AWS Chatbot), one alarm
 * over all alarms, one dashboard.
 */
import { Aws, CfnOutput } from 'aws-cdk-lib';
import * as budgets from 'aws-cdk-lib/aws-budgets';
import * as chatbot from 'aws-cdk-lib/aws-chatbot';
import * as cloudwatch from 'aws-cdk-lib/aws-cloudwatch';
import * as notifications from 'aws-cdk-lib/aws-codestarnotifications';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as kms from 'aws-cdk-lib/aws-kms';
import * as sns from 'aws-cdk-lib/aws-sns';
import type { Construct } from 'constructs';
import { alarmName, DATABASE_ALARMS, SERVICE_ALARMS } from './alarms';
import type { Config } from './config';
import { dashboard } from './dashboard';
import { deploymentArns } from './deployers';
import {
  allow, BooksStack, denyPlain, type Policy, policy, trustPlain,
} from './stack';

const PUBLISHERS = ['cloudwatch.amazonaws.com',
  'codestar-notifications.amazonaws.com'];

export class OpsStack extends BooksStack {
  constructor(scope: Construct, config: Config) {
    super(scope, 'Ops', config, 'alarms, chat, dashboard');
    const topic = this.addTopic(this.addKey());
    this.addChat(topic);
    this.addRule(topic);
    new cloudwatch.CfnCompositeAlarm(this, 'Composite', {
      alarmName: this.named('service-is-ill'),
      alarmRule: [...DATABASE_ALARMS, ...SERVICE_ALARMS]
        .map((id) => `ALARM("${alarmName(this, id)}")`).join(' OR '),
      alarmActions: [topic.ref],
      okActions: [topic.ref],
    });
    new cloudwatch.CfnDashboard(this, 'Dashboard', {
      dashboardName: config.prefix,
      dashboardBody: this.toJsonString(dashboard(this)),
    });
    if (config.budget > 0)
      this.addBudget();
    new CfnOutput(this, 'TopicArn', { value: topic.ref });
  }

  private fromHere(principals: string[]): Policy {
    return {
      Effect: 'Allow',
      Principal: { Service: principals },
      Condition: { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } },
    };
  }

  private addKey(): kms.CfnKey {
    return new kms.CfnKey(this, 'Key', {
      description: `${this.config.prefix}: alarms`,
      enableKeyRotation: true,
      keyPolicy: policy(
        {
          Effect: 'Allow',
          Principal: {
            AWS: `arn:${Aws.PARTITION}:iam::${Aws.ACCOUNT_ID}:root`,
          },
          Action: 'kms:*',
          Resource: '*',
        },
        {
          ...this.fromHere(PUBLISHERS),
          Action: ['kms:Decrypt', 'kms:GenerateDataKey*'],
          Resource: '*',
        }),
    });
  }

  private addTopic(key: kms.CfnKey): sns.CfnTopic {
    const topic = new sns.CfnTopic(this, 'Topic', {
      topicName: this.named('alarms'),
      kmsMasterKeyId: key.ref,
    });
    new sns.CfnTopicPolicy(this, 'TopicPolicy', {
      topics: [topic.ref],
      policyDocument: policy(
        {
          ...this.fromHere(PUBLISHERS),
          Action: 'sns:Publish',
          Resource: topic.ref,
        },
        denyPlain('sns:Publish', topic.ref)),
    });
    return topic;
  }

  private addChat(topic: sns.CfnTopic): void {
    const role = new iam.CfnRole(this, 'ChatRole', {
      assumeRolePolicyDocument: trustPlain('chatbot.amazonaws.com'),
      policies: [{
        policyName: 'read',
        policyDocument: policy(allow(['cloudwatch:DescribeAlarms',
          'cloudwatch:GetMetricData', 'cloudwatch:ListMetrics'], '*')),
      }],
    });
    new chatbot.CfnSlackChannelConfiguration(this, 'Channel', {
      configurationName: this.named('slack'),
      iamRoleArn: role.attrArn,
      slackWorkspaceId: this.parameter('SlackWorkspaceId'),
      slackChannelId: this.parameter('SlackChannelId'),
      snsTopicArns: [topic.ref],
      loggingLevel: 'ERROR',
      guardrailPolicies: [
        `arn:${Aws.PARTITION}:iam::aws:policy/CloudWatchReadOnlyAccess`],
    });
  }

  private addRule(topic: sns.CfnTopic): void {
    new notifications.CfnNotificationRule(this, 'Deployments', {
      name: this.named('deployments'),
      detailType: 'FULL',
      resource: deploymentArns(this).application,
      eventTypeIds: ['started', 'succeeded', 'failed'].map((state) =>
        `codedeploy-application-deployment-${state}`),
      targets: [{ targetType: 'SNS', targetAddress: topic.ref }],
    });
  }

  private addBudget(): void {
    new budgets.CfnBudget(this, 'Budget', {
      budget: {
        budgetName: this.named('month'),
        budgetType: 'COST',
        timeUnit: 'MONTHLY',
        budgetLimit: { amount: this.config.budget, unit: 'USD' },
      },
      notificationsWithSubscribers: [{
        notification: {
          notificationType: 'FORECASTED',
          comparisonOperator: 'GREATER_THAN',
          threshold: 100,
          thresholdType: 'PERCENTAGE',
        },
        subscribers: [{
          subscriptionType: 'EMAIL', address: this.parameter('BudgetMail'),
        }],
      }],
    });
  }
}
