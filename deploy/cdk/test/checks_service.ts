/*
 * Requirements: tasks, load balancers, scaling, deployments.
 */
import assert from 'node:assert/strict';
import { alarmName, SERVICE_ALARMS } from '../lib/alarms';
import { EMF } from '../lib/container';
import { taskPort } from '../lib/hops';
import { check } from './check';
import { all, type Model, one } from './model';

function attributes(pairs: { Key: string; Value: string }[]) {
  return Object.fromEntries(pairs.map(({ Key, Value }) => [Key, Value]));
}

function container(model: Model, stack = 'Service', id = 'Task') {
  return one(model, stack, id).props.ContainerDefinitions[0];
}

export const SERVICE_CHECKS = [
  check('CodeDeploy and the scaling own the service', (model) => {
    const { props } = one(model, 'Service', 'Service');
    assert.equal(props.DeploymentController.Type, 'CODE_DEPLOY');
    assert.equal(props.DesiredCount, undefined);
    assert.equal(props.TaskDefinition, `${model.config.prefix}-task`);
    assert.equal(props.LaunchType, 'FARGATE');
    assert.equal(props.EnableExecuteCommand, model.config.exec);
  }),

  check('tasks have no public address and one group', (model) => {
    assert.deepEqual(one(model, 'Service', 'Service').props
      .NetworkConfiguration.AwsvpcConfiguration, {
      AssignPublicIp: 'DISABLED',
      Subnets: ['Network.AppA', 'Network.AppB'],
      SecurityGroups: ['Network.Task'],
    });
  }),

  check('containers have no rights, no shell and nothing to write', (model) => {
    for (const it of [container(model), container(model, 'Data', 'Migrate')]) {
      assert.equal(it.User, '10001:10001');
      assert.equal(it.ReadonlyRootFilesystem, true);
      assert.deepEqual(it.LinuxParameters.Capabilities.Drop, ['ALL']);
      assert.match(it.Image, /@<ImageDigest>$/);
      assert.equal(it.LogConfiguration.Options['mode'], 'non-blocking');
    }
  }),

  check('the architecture is a parameter', (model) => {
    for (const [stack, id] of [['Service', 'Task'], ['Data', 'Migrate']])
      assert.equal(one(model, stack, id).props.RuntimePlatform.CpuArchitecture,
        '<CpuArchitecture>');
  }),

  check('ECS asks booksctl whether the task lives', (model) => {
    assert.deepEqual(container(model).HealthCheck.Command,
      ['CMD', '/usr/bin/booksctl', 'health', '--live']);
  }),

  check('the drain ends before ECS kills', (model) => {
    const settings = Object.fromEntries(container(model).Environment.map(
      ({ Name, Value }: any) => [Name, Value]));
    assert.ok(container(model).StopTimeout >
      parseInt(settings['BOOKS_DRAIN_TIMEOUT'], 10));
    assert.ok(container(model).StopTimeout <= 120);
    assert.equal(settings['BOOKS_MIGRATE_ON_START'], 'off');
    assert.equal(settings['BOOKS_LISTEN'], `*:${taskPort(model.config)}`);
  }),

  check('the database is verified by name, the password a secret', (model) => {
    for (const it of [container(model), container(model, 'Data', 'Migrate')]) {
      const settings = Object.fromEntries(it.Environment.map(
        ({ Name, Value }: any) => [Name, Value]));
      for (const name of ['PGPASSWORD', 'PGUSER'])
        assert.ok(!(name in settings), name);
      assert.match(settings['BOOKS_DATABASE'] ??
        `sslmode=${settings['PGSSLMODE']}`, /sslmode=verify-full/);
      assert.doesNotMatch(settings['BOOKS_DATABASE'] ?? '', /password|user/);
    }
  }),

  check('there is a place to write, and three more for ECS Exec', (model) => {
    assert.deepEqual(
      container(model).MountPoints.map((m: any) => m.ContainerPath), [
        '/run/booksd',
        ...(model.config.exec ? ['/managed-agents', '/var/lib/amazon/ssm',
          '/var/log/amazon/ssm'] : []),
      ]);
  }),

  check('load balancers are internal', (model) => {
    const found = all(model, 'ElasticLoadBalancingV2::LoadBalancer');
    assert.deepEqual(found.map(({ id }) => id),
      model.config.api.link === 'v1' ? ['Alb', 'Nlb'] : ['Alb']);
    for (const { props } of found)
      assert.equal(props.Scheme, 'internal');
  }),

  check('the ALB is strict, logs, and gives up before booksd', (model) => {
    const { props } = one(model, 'Service', 'Alb');
    const is = attributes(props.LoadBalancerAttributes);
    assert.equal(is['routing.http.desync_mitigation_mode'], 'strictest');
    assert.equal(is['routing.http.drop_invalid_header_fields.enabled'], 'true');
    assert.equal(is['access_logs.s3.enabled'], 'true');
    assert.ok(Number(is['idle_timeout.timeout_seconds']) < 75);
    assert.equal(is['deletion_protection.enabled'],
      String(model.config.production));
  }),

  check('both listeners speak TLS with the given certificate', (model) => {
    for (const [id, port] of [['Production', 443], ['Test', 8443]] as const) {
      const { props } = one(model, 'Service', id);
      assert.equal(props.Port, port);
      assert.equal(props.Protocol, 'HTTPS');
      assert.match(props.SslPolicy, /TLS13-1-2-Res/);
      assert.deepEqual(props.Certificates,
        [{ CertificateArn: '<CertificateArn>' }]);
    }
  }),

  check('two target groups, alike, asked for readiness', (model) => {
    const [blue, green] = ['Blue', 'Green'].map((id) => {
      const { Name: _, Tags: __, ...rest } = one(model, 'Service', id).props;
      return rest;
    });
    assert.deepEqual(blue, green);
    assert.equal(blue.Protocol, model.config.task.protocol.toUpperCase());
    assert.equal(blue.Port, taskPort(model.config));
    assert.equal(blue.HealthCheckPath, '/readyz');
    assert.equal(blue.Matcher.HttpCode, '200');
  }),

  check('the NLB passes TLS through to the ALB', (model) => {
    if (model.config.api.link !== 'v1')
      return;
    assert.equal(one(model, 'Service', 'NlbListener').props.Protocol, 'TCP');
    const { props } = one(model, 'Service', 'NlbToAlb');
    assert.equal(props.TargetType, 'alb');
    assert.deepEqual(props.Targets, [{ Id: 'Service.Alb', Port: 443 }]);
    assert.equal(one(model, 'Service', 'Nlb').props
      .EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic, 'off');
  }),

  check('access logs are private and come over TLS', (model) => {
    const { props } = one(model, 'Service', 'AccessLogs');
    assert.ok(Object.values(props.PublicAccessBlockConfiguration)
      .every((value) => value === true));
    const [deny] = one(model, 'Service', 'AccessLogsPolicy')
      .props.PolicyDocument.Statement;
    assert.equal(deny.Effect, 'Deny');
    assert.deepEqual(deny.Condition,
      { Bool: { 'aws:SecureTransport': 'false' } });
  }),

  check('scaling keeps its bounds', (model) => {
    const { props } = one(model, 'Service', 'Scaling');
    assert.equal(props.MinCapacity, model.config.scaling.min);
    assert.ok(props.MaxCapacity >= props.MinCapacity);
  }),

  check('scaling follows the CPU and how busy booksd says it is', (model) => {
    const settings = (id: string) => one(model, 'Service', id)
      .props.TargetTrackingScalingPolicyConfiguration;
    assert.equal(settings('ScaleCpu').PredefinedMetricSpecification
      .PredefinedMetricType, 'ECSServiceAverageCPUUtilization');
    const busy = settings('ScaleBusy');
    assert.ok(busy.TargetValue > 0 && busy.TargetValue < 100);
    assert.deepEqual(busy.CustomizedMetricSpecification, {
      Namespace: EMF.namespace,
      MetricName: EMF.busy,
      Statistic: 'Average',
      Dimensions: [
        { Name: 'Cluster', Value: model.config.prefix },
        { Name: 'Service', Value: `${model.config.prefix}-service` },
      ],
    });
  }),

  check('a deployment is a canary', (model) => {
    const { props } = one(model, 'Service', 'Group');
    assert.equal(props.DeploymentConfigName,
      'CodeDeployDefault.ECSCanary10Percent5Minutes');
    assert.deepEqual(props.DeploymentStyle, {
      DeploymentType: 'BLUE_GREEN', DeploymentOption: 'WITH_TRAFFIC_CONTROL',
    });
    const [pair] = props.LoadBalancerInfo.TargetGroupPairInfoList;
    assert.equal(pair.TargetGroups.length, 2);
    assert.deepEqual(pair.ProdTrafficRoute.ListenerArns,
      ['Service.Production']);
    assert.deepEqual(pair.TestTrafficRoute.ListenerArns, ['Service.Test']);
    assert.equal(props.BlueGreenDeploymentConfiguration
      .TerminateBlueInstancesOnDeploymentSuccess.TerminationWaitTimeInMinutes,
    10);
  }),

  check('a deployment rolls back when it fails or an alarm fires', (model) => {
    const { props } = one(model, 'Service', 'Group');
    assert.equal(props.AutoRollbackConfiguration.Enabled, true);
    assert.deepEqual(props.AutoRollbackConfiguration.Events,
      ['DEPLOYMENT_FAILURE', 'DEPLOYMENT_STOP_ON_ALARM',
        'DEPLOYMENT_STOP_ON_REQUEST']);
    assert.equal(props.AlarmConfiguration.Enabled, true);
    const names = props.AlarmConfiguration.Alarms.map((a: any) => a.Name);
    assert.deepEqual(names, SERVICE_ALARMS.map((id) => alarmName(
      { named: (what: string) => `${model.config.prefix}-${what}` } as never,
      id)));
    const made = all(model, 'CloudWatch::Alarm').map((a) => a.props.AlarmName);
    for (const name of names)
      assert.ok(made.includes(name), name);
  }),
];
