/*
 * The values that belong to an account.  None has a default: an example that
 * is deployed by mistake is worse than a question.
 */
import type { CfnParameterProps } from 'aws-cdk-lib';

const text = (
  description: string, allowedPattern: string, more: CfnParameterProps = {}) =>
  ({
    type: 'String', description, allowedPattern,
    constraintDescription: description, ...more,
  });

export const PARAMETERS = {
  ZoneA: text('First availability zone', '^[a-z0-9-]+[a-z]$'),
  ZoneB: text('Second availability zone', '^[a-z0-9-]+[a-z]$'),
  S3PrefixList: text('Prefix list of S3 in this region, pl-...',
    '^pl-[0-9a-f]+$'),
  ImageDigest: text('Digest of the image in the repository, sha256:...',
    '^sha256:[0-9a-f]{64}$'),
  CpuArchitecture: {
    type: 'String', description: 'Architecture of the tasks',
    allowedValues: ['ARM64', 'X86_64'],
  },
  CertificateArn: text('ARN of the ACM certificate on the ALB',
    '^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9a-f-]+$'),
  CertificateName: text('Host name for which that certificate is',
    '^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$'),
  GitHubRepository: text('owner/name of the GitHub repository',
    '^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$'),
  SlackWorkspaceId: text('Id of the authorized Slack workspace, T...',
    '^T[0-9A-Z]{8,}$'),
  SlackChannelId: text('Id of the Slack channel, C... or G...',
    '^[CG][0-9A-Z]{8,}$'),
  BastionCidr: text('Network from which SSH is accepted, not all of them',
    '^[0-9.]+/(3[0-2]|2[0-9]|1[6-9])$'),
  BastionImage: {
    type: 'AWS::EC2::Image::Id', description: 'Image of the bastion',
  },
  BastionKey: {
    type: 'AWS::EC2::KeyPair::KeyName', description: 'SSH key of the bastion',
  },
  DomainName: text('Custom domain name of the API', '^[a-z0-9][a-z0-9.-]+$'),
  DomainCertificateArn: text('ARN of the ACM certificate of that name',
    '^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9a-f-]+$'),
  BudgetMail: text('Address for the budget alarm', '^[^@ ]+@[^@ ]+$'),
} satisfies Record<string, CfnParameterProps>;

export type ParameterName = keyof typeof PARAMETERS;
