/*
 * Requirements: the network, and what may pass it.
 */
import assert from 'node:assert/strict';
import { endpoints } from '../lib/endpoints';
import { groups, hops } from '../lib/hops';
import { title } from '../lib/network';
import { check } from './check';
import { all, list } from './model';

const NETWORK_ONLY = ['InternetGateway', 'NatGateway', 'EIP',
  'VPCGatewayAttachment', 'Route'];

/* Actions that know no resource. */
const ANYWHERE = ['ecr:GetAuthorizationToken',
  'secretsmanager:GetRandomPassword', 'ssmmessages:'];

export const NETWORK_CHECKS = [
  check('nothing is open to or from everywhere', (model) => {
    for (const [id, template] of Object.entries(model.stacks))
      assert.doesNotMatch(JSON.stringify(template), /0\.0\.0\.0\/0|::\/0/, id);
  }),

  check('only the bastion has a way to the internet', (model) => {
    for (const type of NETWORK_ONLY)
      for (const { stack, id } of all(model, type))
        assert.equal(stack, 'Bastion', id);
    assert.equal('Bastion' in model.stacks, model.config.bastion);
    for (const { props } of all(model, 'EC2::Subnet'))
      assert.equal(props.MapPublicIpOnLaunch, false);
  }),

  check('three tiers in two zones', (model) => {
    const subnets = all(model, 'EC2::Subnet', 'Network');
    assert.equal(subnets.length, 6);
    assert.equal(new Set(subnets.map((s) => s.props.CidrBlock)).size, 6);
    assert.deepEqual(
      [...new Set(subnets.map((s) => s.props.AvailabilityZone))],
      ['<ZoneA>', '<ZoneB>']);
  }),

  check('the rules of the groups are the hops and no others', (model) => {
    const rule = (from: string, to: string, props: any): string =>
      `${from} > ${to} ${props.IpProtocol} ${props.FromPort}-${props.ToPort}`;
    const wanted = hops(model.config).map((hop) => rule(
      `Network.${title(hop.from)}`,
      hop.to === 's3' ? '<S3PrefixList>' : `Network.${title(hop.to)}`,
      { IpProtocol: 'tcp', FromPort: hop.port, ToPort: hop.port })).sort();
    assert.deepEqual(
      all(model, 'SecurityGroupEgress').map(({ props }) => rule(props.GroupId,
        props.DestinationSecurityGroupId ?? props.DestinationPrefixListId,
        props)).sort(), wanted);
    assert.deepEqual(
      all(model, 'SecurityGroupIngress', 'Network').map(({ props }) =>
        rule(props.SourceSecurityGroupId, props.GroupId, props)).sort(),
      wanted.filter((text) => !text.includes('<S3PrefixList>')));
  }),

  check('no group has the rule to everywhere that AWS adds', (model) => {
    const found = all(model, 'EC2::SecurityGroup', 'Network');
    assert.deepEqual(found.map(({ id }) => id),
      groups(model.config).map(title));
    for (const { props } of found) {
      assert.deepEqual(props.SecurityGroupEgress.map((r: any) => r.CidrIp),
        ['255.255.255.255/32']);
      assert.equal(props.SecurityGroupIngress, undefined);
    }
  }),

  check('there is an endpoint for each service that is called', (model) => {
    assert.deepEqual(
      all(model, 'VPCEndpoint').map(({ props }) => props.ServiceName),
      endpoints(model.config).map(({ service }) =>
        `com.amazonaws.us-east-1.${service}`));
    for (const { props } of all(model, 'VPCEndpoint')) {
      if (props.VpcEndpointType === 'Gateway')
        continue;
      assert.equal(props.PrivateDnsEnabled, true);
      assert.deepEqual(props.SecurityGroupIds, ['Network.Endpoints']);
    }
  }),

  check('endpoint policies name account, actions and resources', (model) => {
    for (const { id, props } of all(model, 'VPCEndpoint'))
      for (const statement of props.PolicyDocument.Statement) {
        const actions = list<string>(statement.Action);
        for (const action of actions)
          assert.doesNotMatch(action, /\*/, id);
        if (list(statement.Resource).includes('*'))
          for (const action of actions)
            assert.ok(ANYWHERE.some((a) => action.startsWith(a)), action);
        if (id === 'EndpointS3')
          assert.equal(statement.Resource,
            'arn:aws:s3:::prod-us-east-1-starport-layer-bucket/*');
        else
          assert.deepEqual(statement.Condition,
            { StringEquals: { 'aws:PrincipalAccount': '123456789012' } }, id);
      }
  }),

  check('the secrets endpoint knows secrets, not roles', (model) => {
    const [endpoint] = all(model, 'VPCEndpoint')
      .filter(({ id }) => id === 'EndpointSecrets');
    const text = JSON.stringify(endpoint.props.PolicyDocument);
    assert.doesNotMatch(text, /PrincipalArn|:role\//);
    assert.deepEqual(
      endpoint.props.PolicyDocument.Statement.map((s: any) => s.Resource), [
        `arn:aws:secretsmanager:us-east-1:123456789012:secret:${
          model.config.prefix}/books_app-??????`,
        'arn:aws:secretsmanager:us-east-1:123456789012:secret:rds!db-*', '*']);
  }),

  check('refused packets are logged', (model) => {
    const [log] = all(model, 'FlowLog');
    assert.equal(log.props.ResourceId, 'Network.Vpc');
    assert.equal(log.props.TrafficType, 'REJECT');
  }),

  check('the bastion takes SSH from one network', (model) => {
    for (const { props } of all(model, 'SecurityGroup', 'Bastion'))
      assert.deepEqual(props.SecurityGroupIngress.map((r: any) =>
        [r.CidrIp, r.FromPort, r.ToPort]), [['<BastionCidr>', 22, 22]]);
    assert.equal(all(model, 'SecurityGroup', 'Bastion').length,
      model.config.bastion ? 1 : 0);
  }),
];
