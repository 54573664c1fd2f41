/*
 * What all stacks have in common: fixed names, parameters for what belongs to
 * an account, no bootstrap, tags.
 *
 * The constructs are CloudFormation's own (Cfn...), not those of a higher
 * level: nothing is in a template that cannot be read in this folder, no
 * function or asset comes with it, and logical ids are the names given here.
 */
import {
  Aws, CfnParameter, CfnResource, DefaultStackSynthesizer, Fn, Stack, Tags,
} from 'aws-cdk-lib';
import type { Construct } from 'constructs';
import type { Config } from './config';
import { PARAMETERS, type ParameterName } from './parameters';

/* Not every release of the schema knows tags of these. */
const UNTAGGED = [
  'AWS::ApplicationAutoScaling::ScalableTarget', 'AWS::CloudWatch::Dashboard',
  'AWS::ElasticLoadBalancingV2::Listener',
];

export type Policy = Record<string, unknown>;

export class BooksStack extends Stack {
  constructor(
    scope: Construct, id: string, readonly config: Config,
    description: string) {
    super(scope, id, {
      stackName: stackName(config, id),
      description: `AWSome Books, ${config.environment}: ${description}`,
      synthesizer: new DefaultStackSynthesizer({
        generateBootstrapVersionRule: false,
      }),
      analyticsReporting: false,
      terminationProtection: config.production,
    });
    for (const [key, value] of Object.entries({
      application: 'awsome-books', environment: config.environment,
    }))
      Tags.of(this).add(key, value, { excludeResourceTypes: UNTAGGED });
  }

  /** A fixed name: prefix and what it is. */
  named(what: string): string {
    return `${this.config.prefix}-${what}`;
  }

  /** A parameter of the template, made when it is first used. */
  parameter(name: ParameterName): string {
    const there = this.node.tryFindChild(name) as CfnParameter | undefined;
    return (there ?? new CfnParameter(this, name, PARAMETERS[name]))
      .valueAsString;
  }

  /** arn:aws:service:region:account:resource */
  arn(service: string, resource: string): string {
    return `arn:${Aws.PARTITION}:${service}:${Aws.REGION}:` +
      `${Aws.ACCOUNT_ID}:${resource}`;
  }

  roleArn(what: string): string {
    return `arn:${Aws.PARTITION}:iam::${Aws.ACCOUNT_ID}:role/` +
      this.named(what);
  }

  /** A secret's ARN by its name: six characters are added to that. */
  secretArn(what: string): string {
    return this.arn('secretsmanager',
      `secret:${this.config.prefix}/${what}-??????`);
  }

  topicArn(): string {
    return this.arn('sns', this.named('alarms'));
  }

  zone(index: number): string {
    return this.parameter(index === 0 ? 'ZoneA' : 'ZoneB');
  }
}

export function stackName(config: Config, id: string): string {
  return `${config.prefix}-${id.toLowerCase()}`;
}

export function allow(
  actions: string[], resources: string | string[], condition?: Policy): Policy {
  return {
    Effect: 'Allow',
    Action: actions,
    Resource: resources,
    ...(condition === undefined ? {} : { Condition: condition }),
  };
}

export function policy(...statements: Policy[]): Policy {
  return { Version: '2012-10-17', Statement: statements };
}

/** Who may take a role: a service, in this account. */
export function trust(service: string): Policy {
  return policy({
    Effect: 'Allow',
    Principal: { Service: service },
    Action: 'sts:AssumeRole',
    Condition: { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } },
  });
}

/** Services that do not send aws:SourceAccount when they take a role. */
export function trustPlain(service: string): Policy {
  return policy({
    Effect: 'Allow',
    Principal: { Service: service },
    Action: 'sts:AssumeRole',
  });
}

export function tagsOfName(name: string): { key: string; value: string }[] {
  return [{ key: 'Name', value: name }];
}

/** Refuse everything that is not TLS. */
export function denyPlain(action: string, resources: unknown): Policy {
  return {
    Effect: 'Deny',
    Principal: '*',
    Action: action,
    Resource: resources,
    Condition: { Bool: { 'aws:SecureTransport': 'false' } },
  };
}

/** What has a name and a content: kept, unless its first creation failed. */
export function keep(...resources: CfnResource[]): void {
  for (const resource of resources) {
    resource.cfnOptions.deletionPolicy = 'RetainExceptOnCreate' as never;
    resource.cfnOptions.updateReplacePolicy = 'Retain' as never;
  }
}

export function sub(text: string): string {
  return Fn.sub(text);
}
