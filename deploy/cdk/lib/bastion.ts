/*
 * Optional: a host with an address of its own, for people who want psql.  The
 * only stack with a way to the internet.  An EC2 Instance Connect Endpoint
 * does the same without one: see the runbook.
 */
import * as ec2 from 'aws-cdk-lib/aws-ec2';
import type { Construct } from 'constructs';
import type { Config } from './config';
import { PORT_DATABASE } from './hops';
import type { NetworkStack } from './network';
import { BooksStack, tagsOfName } from './stack';

const SSH = 22;

export class BastionStack extends BooksStack {
  constructor(
    scope: Construct, config: Config, private readonly network: NetworkStack) {
    super(scope, 'Bastion', config, 'a host for SSH');
    const group = this.addGroup();
    const subnet = this.addSubnet();
    new ec2.CfnInstance(this, 'Host', {
      imageId: this.parameter('BastionImage'),
      keyName: this.parameter('BastionKey'),
      instanceType: 't4g.nano',
      disableApiTermination: false,
      monitoring: true,
      ebsOptimized: true,
      networkInterfaces: [{
        deviceIndex: '0',
        associatePublicIpAddress: true,
        subnetId: subnet.ref,
        groupSet: [group.attrGroupId],
      }],
      metadataOptions: { httpTokens: 'required' },
      blockDeviceMappings: [{
        deviceName: '/dev/xvda',
        ebs: { encrypted: true, volumeType: 'gp3', volumeSize: 8 },
      }],
      tags: tagsOfName(this.named('bastion')),
    });
  }

  private addGroup(): ec2.CfnSecurityGroup {
    const ssh = { ipProtocol: 'tcp', fromPort: SSH, toPort: SSH };
    const sql = {
      ipProtocol: 'tcp', fromPort: PORT_DATABASE, toPort: PORT_DATABASE,
      description: 'bastion to database: PostgreSQL',
    };
    const group = new ec2.CfnSecurityGroup(this, 'Group', {
      vpcId: this.network.vpc.ref,
      groupDescription: 'AWSome Books: bastion',
      securityGroupIngress: [{
        ...ssh, cidrIp: this.parameter('BastionCidr'),
        description: 'SSH from one network',
      }],
      securityGroupEgress: [{
        ...sql,
        destinationSecurityGroupId: this.network.groupId('database'),
      }],
      tags: tagsOfName(this.named('bastion')),
    });
    new ec2.CfnSecurityGroupIngress(this, 'DatabaseFromBastion', {
      groupId: this.network.groupId('database'),
      sourceSecurityGroupId: group.attrGroupId,
      ...sql,
    });
    return group;
  }

  private addSubnet(): ec2.CfnSubnet {
    const { vpc } = this.network;
    const gateway = new ec2.CfnInternetGateway(this, 'Gateway', {});
    const attachment = new ec2.CfnVPCGatewayAttachment(this, 'Attachment', {
      vpcId: vpc.ref, internetGatewayId: gateway.ref,
    });
    const subnet = new ec2.CfnSubnet(this, 'Subnet', {
      vpcId: vpc.ref,
      availabilityZone: this.zone(0),
      cidrBlock: this.config.vpcCidr.replace('.0.0/16', '.192.0/24'),
      mapPublicIpOnLaunch: false,
      tags: tagsOfName(this.named('bastion')),
    });
    const table = new ec2.CfnRouteTable(this, 'Routes', { vpcId: vpc.ref });
    const route = new ec2.CfnRoute(this, 'Out', {
      routeTableId: table.ref,
      gatewayId: gateway.ref,
      // Answers go back to that network alone.
      destinationCidrBlock: this.parameter('BastionCidr'),
    });
    route.addResourceDependency(attachment);
    new ec2.CfnSubnetRouteTableAssociation(this, 'Association', {
      subnetId: subnet.ref, routeTableId: table.ref,
    });
    return subnet;
  }
}
