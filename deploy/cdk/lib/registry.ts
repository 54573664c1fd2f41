/*
 * The first stack: a place for images, and roles for those who deploy.  What
 * the roles may touch comes later, so they name it by its fixed name.
 */
import { Aws, CfnOutput } from 'aws-cdk-lib';
import * as ecr from 'aws-cdk-lib/aws-ecr';
import * as iam from 'aws-cdk-lib/aws-iam';
import type { Construct } from 'constructs';
import type { Config } from './config';
import { releaseStatements, rollbackStatements } from './deployers';
import { BooksStack, keep, type Policy, policy } from './stack';

export const GITHUB = 'token.actions.githubusercontent.com';
const IMAGES_KEPT = 50;

export class RegistryStack extends BooksStack {
  constructor(scope: Construct, config: Config) {
    super(scope, 'Registry', config, 'images and the roles that deploy');
    this.addRepository();
    const provider = config.oidcProvider === 'create'
      ? new iam.CfnOIDCProvider(this, 'GitHub', {
        url: `https://${GITHUB}`,
        clientIdList: ['sts.amazonaws.com'],
      }).attrArn
      : `arn:${Aws.PARTITION}:iam::${Aws.ACCOUNT_ID}:oidc-provider/${GITHUB}`;
    this.addRole('Release', 'release', provider, releaseStatements(this));
    this.addRole('Rollback', 'rollback', provider, rollbackStatements(this));
  }

  private addRepository(): void {
    const repository = new ecr.CfnRepository(this, 'Repository', {
      repositoryName: this.config.prefix,
      imageTagMutability: 'IMMUTABLE',
      imageScanningConfiguration: { scanOnPush: true },
      encryptionConfiguration: { encryptionType: 'KMS' },
      lifecyclePolicy: {
        lifecyclePolicyText: JSON.stringify({
          rules: [{
            rulePriority: 1,
            description: `The newest ${IMAGES_KEPT} stay`,
            selection: {
              tagStatus: 'any',
              countType: 'imageCountMoreThan',
              countNumber: IMAGES_KEPT,
            },
            action: { type: 'expire' },
          }],
        }),
      },
    });
    keep(repository);
    new CfnOutput(this, 'RepositoryUri', {
      value: repository.attrRepositoryUri,
    });
  }

  /* Only jobs of that GitHub environment, which people can guard. */
  private addRole(
    id: string, name: string, provider: string, statements: Policy[]): void {
    const role = new iam.CfnRole(this, `${id}Role`, {
      roleName: this.named(name),
      maxSessionDuration: 7200,
      assumeRolePolicyDocument: policy({
        Effect: 'Allow',
        Principal: { Federated: provider },
        Action: 'sts:AssumeRoleWithWebIdentity',
        Condition: {
          StringEquals: {
            [`${GITHUB}:aud`]: 'sts.amazonaws.com',
            [`${GITHUB}:sub`]: `repo:${this.parameter('GitHubRepository')}` +
              `:environment:${this.config.environment}`,
          },
        },
      }),
      policies: [{ policyName: name, policyDocument: policy(...statements) }],
    });
    new CfnOutput(this, `${id}RoleArn`, { value: role.attrArn });
  }
}
