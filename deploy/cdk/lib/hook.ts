/*
 * The validation function's own text: inline, so that no asset is needed.
 * It asks each question up to five times and tells CodeDeploy the outcome.
 */
export const HOOK_SOURCE = `
const https = require('node:https');
const { CodeDeployClient, PutLifecycleEventHookExecutionStatusCommand } =
  require('@aws-sdk/client-codedeploy');

const QUESTIONS = [['/readyz', 200], ['/', 200], ['/books/0000000000', 404]];

function ask(path) {
  return new Promise((resolve, reject) => {
    const request = https.get({
      host: process.env.ALB, port: 8443, path, timeout: 5000,
      servername: process.env.NAME,
      headers: { host: process.env.NAME },
      rejectUnauthorized: process.env.VERIFY === '1',
    }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode));
    });
    request.on('timeout', () => request.destroy(new Error('timeout')));
    request.on('error', reject);
  });
}

async function answered([path, wanted]) {
  for (let tries = 0; tries < 5; tries++) {
    const status = await ask(path).catch((error) => error.message);
    console.log(JSON.stringify({ path, wanted, status }));
    if (status === wanted)
      return true;
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
  return false;
}

exports.handler = async (event) => {
  let good = true;
  for (const question of QUESTIONS)
    good = good && await answered(question);
  await new CodeDeployClient({}).send(
    new PutLifecycleEventHookExecutionStatusCommand({
      deploymentId: event.DeploymentId,
      lifecycleEventHookExecutionId: event.LifecycleEventHookExecutionId,
      status: good ? 'Succeeded' : 'Failed',
    }));
};
`.trimStart();
