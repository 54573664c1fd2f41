/*
 * The way in: an NLB that passes TCP on (or the gateway's own interfaces), and
 * the ALB that ends TLS, with a production and a test listener and two target
 * groups between which CodeDeploy moves the traffic.
 */
import { Aws, CfnOutput } from 'aws-cdk-lib';
import * as elb from 'aws-cdk-lib/aws-elasticloadbalancingv2';
import * as s3 from 'aws-cdk-lib/aws-s3';
import { PORT_PRODUCTION, PORT_TEST, taskPort } from './hops';
import type { NetworkStack } from './network';
import { BooksStack, denyPlain, keep, policy } from './stack';

export interface Balancer {
  readonly alb: elb.CfnLoadBalancer;
  readonly nlb?: elb.CfnLoadBalancer;
  readonly listeners: Record<'production' | 'test', elb.CfnListener>;
  readonly targets: Record<'Blue' | 'Green', elb.CfnTargetGroup>;
}

const TLS_POLICY = 'ELBSecurityPolicy-TLS13-1-2-Res-2021-06';
const HEALTH = {
  healthCheckEnabled: true,
  healthCheckPath: '/readyz',
  healthCheckIntervalSeconds: 10,
  healthyThresholdCount: 2,
  unhealthyThresholdCount: 3,
  healthCheckTimeoutSeconds: 5,
  matcher: { httpCode: '200' },
};

function attributes(values: Record<string, string>) {
  return Object.entries(values).map(([key, value]) => ({ key, value }));
}

export function addBalancer(
  stack: BooksStack, network: NetworkStack): Balancer {
  const bucket = addBucket(stack);
  const alb = new elb.CfnLoadBalancer(stack, 'Alb', {
    name: stack.named('alb'),
    type: 'application',
    scheme: 'internal',
    subnets: network.subnetIds('edge'),
    securityGroups: [network.groupId('alb')],
    loadBalancerAttributes: attributes({
      'access_logs.s3.enabled': 'true',
      'access_logs.s3.bucket': bucket.ref,
      'access_logs.s3.prefix': 'alb',
      'deletion_protection.enabled': String(stack.config.production),
      // booksd keeps idle connections for 75 s: longer, or there are 502s.
      'idle_timeout.timeout_seconds': '60',
      'routing.http.desync_mitigation_mode': 'strictest',
      'routing.http.drop_invalid_header_fields.enabled': 'true',
    }),
  });
  alb.node.addDependency(stack.node.findChild('AccessLogsPolicy'));
  const blue = addTargets(stack, network, 'Blue');
  const green = addTargets(stack, network, 'Green');
  const listeners = {
    production: addListener(stack, 'Production', alb, PORT_PRODUCTION, blue),
    test: addListener(stack, 'Test', alb, PORT_TEST, blue),
  };
  new CfnOutput(stack, 'AlbName', { value: alb.attrDnsName });
  return {
    alb, listeners, targets: { Blue: blue, Green: green },
    ...(stack.config.api.link === 'v1'
      ? { nlb: addNlb(stack, network, alb, listeners.production) } : {}),
  };
}

function addBucket(stack: BooksStack): s3.CfnBucket {
  const bucket = new s3.CfnBucket(stack, 'AccessLogs', {
    // Access logs of load balancers can only use the bucket's own keys.
    bucketEncryption: {
      serverSideEncryptionConfiguration: [{
        serverSideEncryptionByDefault: { sseAlgorithm: 'AES256' },
      }],
    },
    publicAccessBlockConfiguration: {
      blockPublicAcls: true, blockPublicPolicy: true,
      ignorePublicAcls: true, restrictPublicBuckets: true,
    },
    lifecycleConfiguration: {
      rules: [{ id: 'expire', status: 'Enabled', expirationInDays: 90 }],
    },
    ownershipControls: { rules: [{ objectOwnership: 'BucketOwnerEnforced' }] },
  });
  keep(bucket);
  new s3.CfnBucketPolicy(stack, 'AccessLogsPolicy', {
    bucket: bucket.ref,
    policyDocument: policy(
      denyPlain('s3:*', [bucket.attrArn, `${bucket.attrArn}/*`]),
      {
        Effect: 'Allow',
        Principal: {
          Service: 'logdelivery.elasticloadbalancing.amazonaws.com',
        },
        Action: 's3:PutObject',
        Resource: `${bucket.attrArn}/alb/AWSLogs/${Aws.ACCOUNT_ID}/*`,
        Condition: {
          ArnLike: {
            'aws:SourceArn':
              stack.arn('elasticloadbalancing', 'loadbalancer/*'),
          },
        },
      }),
  });
  return bucket;
}

function addTargets(
  stack: BooksStack, network: NetworkStack,
  colour: 'Blue' | 'Green'): elb.CfnTargetGroup {
  const protocol = stack.config.task.protocol.toUpperCase();
  return new elb.CfnTargetGroup(stack, colour, {
    name: stack.named(colour.toLowerCase()),
    targetType: 'ip',
    vpcId: network.vpc.ref,
    protocol,
    port: taskPort(stack.config),
    healthCheckProtocol: protocol,
    ...HEALTH,
    targetGroupAttributes: attributes({
      'deregistration_delay.timeout_seconds': '30',
      'load_balancing.algorithm.type': 'least_outstanding_requests',
    }),
  });
}

function addListener(
  stack: BooksStack, id: string, alb: elb.CfnLoadBalancer, port: number,
  targets: elb.CfnTargetGroup): elb.CfnListener {
  return new elb.CfnListener(stack, id, {
    loadBalancerArn: alb.ref,
    port,
    protocol: 'HTTPS',
    sslPolicy: TLS_POLICY,
    certificates: [{ certificateArn: stack.parameter('CertificateArn') }],
    // CodeDeploy changes this one: no update may touch it afterwards.
    defaultActions: [{ type: 'forward', targetGroupArn: targets.ref }],
  });
}

function addNlb(
  stack: BooksStack, network: NetworkStack, alb: elb.CfnLoadBalancer,
  listener: elb.CfnListener): elb.CfnLoadBalancer {
  const nlb = new elb.CfnLoadBalancer(stack, 'Nlb', {
    name: stack.named('nlb'),
    type: 'network',
    scheme: 'internal',
    subnets: network.subnetIds('edge'),
    securityGroups: [network.groupId('nlb')],
    // What a VPC link sends comes from addresses that no rule can name.
    enforceSecurityGroupInboundRulesOnPrivateLinkTraffic: 'off',
    loadBalancerAttributes: attributes({
      'load_balancing.cross_zone.enabled': 'true',
      'deletion_protection.enabled': String(stack.config.production),
    }),
  });
  const targets = new elb.CfnTargetGroup(stack, 'NlbToAlb', {
    name: stack.named('to-alb'),
    targetType: 'alb',
    vpcId: network.vpc.ref,
    protocol: 'TCP',
    port: PORT_PRODUCTION,
    targets: [{ id: alb.ref, port: PORT_PRODUCTION }],
    healthCheckProtocol: 'HTTPS',
    ...HEALTH,
  });
  targets.addResourceDependency(listener);
  new elb.CfnListener(stack, 'NlbListener', {
    loadBalancerArn: nlb.ref,
    port: PORT_PRODUCTION,
    protocol: 'TCP',
    defaultActions: [{ type: 'forward', targetGroupArn: targets.ref }],
  });
  return nlb;
}
