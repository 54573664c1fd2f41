/*
 * The only door to the world: a REST API with a web firewall before it and a
 * private link behind it.
 */
import { Aws, CfnOutput } from 'aws-cdk-lib';
import * as apigateway from 'aws-cdk-lib/aws-apigateway';
import * as apigatewayv2 from 'aws-cdk-lib/aws-apigatewayv2';
import * as cognito from 'aws-cdk-lib/aws-cognito';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as logs from 'aws-cdk-lib/aws-logs';
import * as wafv2 from 'aws-cdk-lib/aws-wafv2';
import { createHash } from 'node:crypto';
import type { Construct } from 'constructs';
import type { Config } from './config';
import type { NetworkStack } from './network';
import { type Backend, openapi } from './openapi';
import type { ServiceStack } from './service';
import { BooksStack, keep, trustPlain } from './stack';

const STAGE = 'prod';
const LOG_FORMAT = {
  requestId: '$context.requestId',
  time: '$context.requestTimeEpoch',
  ip: '$context.identity.sourceIp',
  method: '$context.httpMethod',
  path: '$context.path',
  status: '$context.status',
  bytes: '$context.responseLength',
  latency: '$context.responseLatency',
  integration: '$context.integration.latency',
  integrationStatus: '$context.integration.status',
  error: '$context.error.message',
  trace: '$context.xrayTraceId',
  waf: '$context.wafResponseCode',
};

export class ApiStack extends BooksStack {
  constructor(
    scope: Construct, config: Config, network: NetworkStack,
    service: ServiceStack) {
    super(scope, 'Api', config, 'the door to the world');
    const api = this.addApi(this.backend(network, service));
    const stage = this.addStage(api);
    this.addFirewall(api, stage);
    if (config.api.keys)
      this.addKeys(api, stage);
    if (config.api.domain)
      this.addDomain(api, stage);
    new CfnOutput(this, 'Url', {
      value: `https://${api.ref}.execute-api.${Aws.REGION}.` +
        `${Aws.URL_SUFFIX}/${STAGE}/`,
    });
  }

  private backend(network: NetworkStack, service: ServiceStack): Backend {
    const { alb, nlb } = service.balancer;
    const host = this.parameter('CertificateName');
    const authorizer = this.config.api.cognito ? this.addPool() : undefined;
    if (nlb !== undefined) {
      const link = new apigateway.CfnVpcLink(this, 'Link', {
        name: this.named('link'), targetArns: [nlb.ref],
      });
      return { host, connectionId: link.ref,
        ...(authorizer !== undefined ? { authorizer } : {}) };
    }
    const link = new apigatewayv2.CfnVpcLink(this, 'LinkV2', {
      name: this.named('link'),
      subnetIds: network.subnetIds('edge'),
      securityGroupIds: [network.groupId('link')],
    });
    return { host, connectionId: link.ref, target: alb.ref,
      ...(authorizer !== undefined ? { authorizer } : {}) };
  }

  private addApi(backend: Backend): apigateway.CfnRestApi {
    return new apigateway.CfnRestApi(this, 'Api', {
      name: this.config.prefix,
      endpointConfiguration: { types: ['REGIONAL'] },
      disableExecuteApiEndpoint: this.config.api.domain,
      failOnWarnings: true,
      body: openapi(this.config, backend),
    });
  }

  /*
   * A deployment is a snapshot and can not be changed: its name is that of
   * what it was made from.
   */
  private addStage(api: apigateway.CfnRestApi): apigateway.CfnStage {
    const hash = createHash('sha256')
      .update(JSON.stringify(this.resolve(api.body))).digest('hex');
    const deployment = new apigateway.CfnDeployment(this,
      `Deployment${hash.slice(0, 12)}`, { restApiId: api.ref });
    keep(deployment);
    const log = new logs.CfnLogGroup(this, 'AccessLog', {
      logGroupName: `/${this.config.prefix}/api`,
      retentionInDays: 30,
    });
    const stage = new apigateway.CfnStage(this, 'Stage', {
      restApiId: api.ref,
      deploymentId: deployment.ref,
      stageName: STAGE,
      tracingEnabled: false,
      accessLogSetting: {
        destinationArn: log.attrArn,
        format: JSON.stringify(LOG_FORMAT),
      },
      methodSettings: [{
        resourcePath: '/*',
        httpMethod: '*',
        loggingLevel: 'ERROR',
        metricsEnabled: true,
        dataTraceEnabled: false,
        throttlingRateLimit: this.config.api.rate,
        throttlingBurstLimit: this.config.api.burst,
      }],
    });
    if (this.config.api.accountRole)
      stage.addResourceDependency(this.addAccount());
    return stage;
  }

  /* One for the region, also for others' APIs: it stays. */
  private addAccount(): apigateway.CfnAccount {
    const role = new iam.CfnRole(this, 'LogRole', {
      assumeRolePolicyDocument: trustPlain('apigateway.amazonaws.com'),
      managedPolicyArns: [`arn:${Aws.PARTITION}:iam::aws:policy/` +
        'service-role/AmazonAPIGatewayPushToCloudWatchLogs'],
    });
    const account = new apigateway.CfnAccount(this, 'Account', {
      cloudWatchRoleArn: role.attrArn,
    });
    keep(role, account);
    return account;
  }

  private addFirewall(
    api: apigateway.CfnRestApi, stage: apigateway.CfnStage): void {
    const visible = (metricName: string) => ({
      cloudWatchMetricsEnabled: true, sampledRequestsEnabled: true, metricName,
    });
    const acl = new wafv2.CfnWebACL(this, 'Firewall', {
      name: this.named('firewall'),
      scope: 'REGIONAL',
      defaultAction: { allow: {} },
      visibilityConfig: visible(this.named('firewall')),
      rules: [{
        name: 'common',
        priority: 1,
        overrideAction: { none: {} },
        visibilityConfig: visible('common'),
        statement: {
          managedRuleGroupStatement: {
            vendorName: 'AWS',
            name: 'AWSManagedRulesCommonRuleSet',
            // booksd takes 1 MiB and answers 413 itself.
            ruleActionOverrides: [{
              name: 'SizeRestrictions_BODY', actionToUse: { count: {} },
            }],
          },
        },
      }],
    });
    const association = new wafv2.CfnWebACLAssociation(this,
      'FirewallAssociation', {
        webAclArn: acl.attrArn,
        resourceArn: `arn:${Aws.PARTITION}:apigateway:${Aws.REGION}::` +
          `/restapis/${api.ref}/stages/${STAGE}`,
      });
    association.addResourceDependency(stage);
  }

  private addKeys(
    api: apigateway.CfnRestApi, stage: apigateway.CfnStage): void {
    const plan = new apigateway.CfnUsagePlan(this, 'Plan', {
      usagePlanName: this.named('plan'),
      apiStages: [{ apiId: api.ref, stage: STAGE }],
      throttle: {
        rateLimit: this.config.api.rate, burstLimit: this.config.api.burst,
      },
    });
    plan.addResourceDependency(stage);
    const key = new apigateway.CfnApiKey(this, 'ClientKey', { enabled: true });
    new apigateway.CfnUsagePlanKey(this, 'PlanKey', {
      usagePlanId: plan.ref, keyId: key.ref, keyType: 'API_KEY',
    });
  }

  private addPool(): string {
    const pool = new cognito.CfnUserPool(this, 'Pool', {
      userPoolName: this.named('users'),
      adminCreateUserConfig: { allowAdminCreateUserOnly: true },
      mfaConfiguration: 'ON',
      enabledMfas: ['SOFTWARE_TOKEN_MFA'],
      deletionProtection: this.config.production ? 'ACTIVE' : 'INACTIVE',
      userPoolAddOns: { advancedSecurityMode: 'ENFORCED' },
      policies: {
        passwordPolicy: {
          minimumLength: 12, requireLowercase: true, requireNumbers: true,
          requireSymbols: true, requireUppercase: true,
        },
      },
    });
    keep(pool);
    new cognito.CfnUserPoolClient(this, 'PoolClient', {
      userPoolId: pool.ref,
      explicitAuthFlows: ['ALLOW_USER_SRP_AUTH', 'ALLOW_REFRESH_TOKEN_AUTH'],
      preventUserExistenceErrors: 'ENABLED',
    });
    return pool.attrArn;
  }

  private addDomain(
    api: apigateway.CfnRestApi, stage: apigateway.CfnStage): void {
    const domain = new apigateway.CfnDomainName(this, 'Domain', {
      domainName: this.parameter('DomainName'),
      regionalCertificateArn: this.parameter('DomainCertificateArn'),
      endpointConfiguration: { types: ['REGIONAL'] },
      securityPolicy: 'TLS_1_2',
    });
    const mapping = new apigateway.CfnBasePathMapping(this, 'Mapping', {
      domainName: domain.ref, restApiId: api.ref, stage: STAGE,
    });
    mapping.addResourceDependency(stage);
    new CfnOutput(this, 'DomainTarget', {
      value: domain.attrRegionalDomainName,
    });
  }
}
