/*
 * A VPC without a way to or from the internet: three tiers in two zones, one
 * security group for each kind of member, endpoints for what a task calls.
 */
import { Aws, CfnOutput } from 'aws-cdk-lib';
import * as ec2 from 'aws-cdk-lib/aws-ec2';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as logs from 'aws-cdk-lib/aws-logs';
import type { Construct } from 'constructs';
import { type Config, subnetCidr } from './config';
import { endpointPolicy, type Endpoint, endpoints } from './endpoints';
import { type Group, groups, type Hop, hops } from './hops';
import { allow, BooksStack, policy, tagsOfName, trust } from './stack';

const TIERS = ['edge', 'app', 'data'] as const;
type Tier = (typeof TIERS)[number];

export class NetworkStack extends BooksStack {
  readonly vpc: ec2.CfnVPC;
  readonly routeTables: ec2.CfnRouteTable[] = [];
  private readonly subnets = new Map<Tier, ec2.CfnSubnet[]>();
  private readonly groups = new Map<Group, ec2.CfnSecurityGroup>();

  constructor(scope: Construct, config: Config) {
    super(scope, 'Network', config, 'private network');
    this.vpc = new ec2.CfnVPC(this, 'Vpc', {
      cidrBlock: config.vpcCidr,
      enableDnsHostnames: true,
      enableDnsSupport: true,
      tags: tagsOfName(this.named('vpc')),
    });
    for (const tier of TIERS)
      this.addTier(tier);
    for (const group of groups(config))
      this.addGroup(group);
    for (const hop of hops(config))
      this.addHop(hop);
    for (const endpoint of endpoints(config))
      this.addEndpoint(endpoint);
    this.addFlowLog();
    new CfnOutput(this, 'VpcId', { value: this.vpc.ref });
    new CfnOutput(this, 'AppSubnets', {
      value: this.subnetIds('app').join(','),
    });
    new CfnOutput(this, 'TaskGroup', { value: this.groupId('task') });
  }

  subnetIds(tier: Tier): string[] {
    return this.subnets.get(tier)!.map((subnet) => subnet.ref);
  }

  groupId(group: Group): string {
    return this.groups.get(group)!.attrGroupId;
  }

  private addTier(tier: Tier): void {
    const subnets = [0, 1].map((zone) => {
      const id = title(tier) + 'AB'[zone];
      const subnet = new ec2.CfnSubnet(this, id, {
        vpcId: this.vpc.ref,
        availabilityZone: this.zone(zone),
        cidrBlock: subnetCidr(this.config, tier, zone as 0 | 1),
        mapPublicIpOnLaunch: false,
        tags: tagsOfName(this.named(id.toLowerCase())),
      });
      const table = new ec2.CfnRouteTable(this, `${id}Routes`, {
        vpcId: this.vpc.ref,
        tags: tagsOfName(this.named(id.toLowerCase())),
      });
      new ec2.CfnSubnetRouteTableAssociation(this, `${id}Association`, {
        subnetId: subnet.ref,
        routeTableId: table.ref,
      });
      if (tier === 'app')
        this.routeTables.push(table);
      return subnet;
    });
    this.subnets.set(tier, subnets);
  }

  /*
   * A group without an egress rule of its own gets one to everywhere.  The
   * rules between groups are resources apart (groups refer to each other), so
   * each group has one that matches nothing.
   */
  private addGroup(group: Group): void {
    this.groups.set(group, new ec2.CfnSecurityGroup(this, title(group), {
      vpcId: this.vpc.ref,
      groupDescription: `AWSome Books: ${group}`,
      securityGroupEgress: [{
        cidrIp: '255.255.255.255/32',
        ipProtocol: 'icmp',
        fromPort: 252,
        toPort: 86,
        description: 'Matches nothing: there is no rule to everywhere',
      }],
      tags: tagsOfName(this.named(group)),
    }));
  }

  private addHop(hop: Hop): void {
    const ports = { ipProtocol: 'tcp', fromPort: hop.port, toPort: hop.port };
    const description = `${hop.from} to ${hop.to}: ${hop.protocol}`;
    const id = `${title(hop.from)}To${title(hop.to)}`;
    new ec2.CfnSecurityGroupEgress(this, id, {
      groupId: this.groupId(hop.from),
      ...ports,
      description,
      ...(hop.to === 's3'
        ? { destinationPrefixListId: this.parameter('S3PrefixList') }
        : { destinationSecurityGroupId: this.groupId(hop.to) }),
    });
    if (hop.to === 's3')
      return;
    new ec2.CfnSecurityGroupIngress(this,
      `${title(hop.to)}From${title(hop.from)}`, {
        groupId: this.groupId(hop.to),
        sourceSecurityGroupId: this.groupId(hop.from),
        ...ports,
        description,
      });
  }

  private addEndpoint(endpoint: Endpoint): void {
    const gateway = endpoint.service === 's3';
    new ec2.CfnVPCEndpoint(this, `Endpoint${endpoint.id}`, {
      vpcId: this.vpc.ref,
      serviceName: `com.amazonaws.${Aws.REGION}.${endpoint.service}`,
      policyDocument: endpointPolicy(this, endpoint),
      ...(gateway
        ? {
          vpcEndpointType: 'Gateway',
          routeTableIds: this.routeTables.map((table) => table.ref),
        }
        : {
          vpcEndpointType: 'Interface',
          privateDnsEnabled: true,
          subnetIds: this.subnetIds('app'),
          securityGroupIds: [this.groupId('endpoints')],
        }),
    });
  }

  private addFlowLog(): void {
    const group = new logs.CfnLogGroup(this, 'FlowLogGroup', {
      logGroupName: `/${this.config.prefix}/flow`,
      retentionInDays: 30,
    });
    const role = new iam.CfnRole(this, 'FlowLogRole', {
      assumeRolePolicyDocument: trust('vpc-flow-logs.amazonaws.com'),
      policies: [{
        policyName: 'write',
        policyDocument: policy(allow(
          ['logs:CreateLogStream', 'logs:PutLogEvents',
            'logs:DescribeLogStreams'], group.attrArn)),
      }],
    });
    new ec2.CfnFlowLog(this, 'FlowLog', {
      resourceId: this.vpc.ref,
      resourceType: 'VPC',
      trafficType: 'REJECT',
      logDestinationType: 'cloud-watch-logs',
      logGroupName: group.ref,
      deliverLogsPermissionArn: role.attrArn,
    });
  }
}

export function title(word: string): string {
  return word[0].toUpperCase() + word.slice(1);
}
