/*
 * Every connection, once: the security groups' rules, the diagram and the
 * assertions are made from this list, so none of them can say anything else.
 */
import type { Config } from './config';

export type Group =
  | 'nlb' | 'link' | 'alb' | 'task' | 'database' | 'endpoints' | 'rotation'
  | 'hook';

export interface Hop {
  readonly from: Group;
  readonly to: Group | 's3';
  readonly port: number;
  /** On the wire: what carries it, and what hides it. */
  readonly protocol: 'HTTPS' | 'HTTP' | 'PostgreSQL';
  readonly encryption: string;
}

export const PORT_TASK = 8080;
export const PORT_TASK_TLS = 8443;
export const PORT_PRODUCTION = 443;
export const PORT_TEST = 8443;
export const PORT_DATABASE = 5432;

const TLS = 'TLS 1.2 or 1.3';

export function taskPort(config: Config): number {
  return config.task.protocol === 'https' ? PORT_TASK_TLS : PORT_TASK;
}

/** Which security groups an environment has. */
export function groups(config: Config): Group[] {
  return [
    config.api.link === 'v1' ? 'nlb' : 'link',
    'alb', 'task', 'database', 'endpoints', 'rotation',
    ...(config.hook ? ['hook' as const] : []),
  ];
}

export function hops(config: Config): Hop[] {
  const https = (from: Group, to: Hop['to'], port = 443): Hop =>
    ({ from, to, port, protocol: 'HTTPS', encryption: TLS });
  const sql = (from: Group): Hop => ({
    from, to: 'database', port: PORT_DATABASE, protocol: 'PostgreSQL',
    encryption: from === 'task' ? `${TLS}, verify-full` : TLS,
  });
  const secure = config.task.protocol === 'https';
  return [
    https(config.api.link === 'v1' ? 'nlb' : 'link', 'alb', PORT_PRODUCTION),
    {
      from: 'alb', to: 'task', port: taskPort(config),
      protocol: secure ? 'HTTPS' : 'HTTP',
      encryption: secure ? `${TLS}, not verified` : 'none',
    },
    sql('task'),
    https('task', 'endpoints'),
    https('task', 's3'),
    sql('rotation'),
    https('rotation', 'endpoints'),
    ...(config.hook
      ? [https('hook', 'alb', PORT_TEST), https('hook', 'endpoints')] : []),
  ];
}
