/*
 * How API Gateway finds a method: segment by segment, a name before a
 * variable, a variable before a greedy one; and booksd's own table of routes.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const TOP = process.env['abs_top_srcdir'] ?? join(__dirname, '../../../..');

export interface Route {
  readonly path: string;
  readonly methods: string[];
}

/** api/api_route.c says what booksd serves. */
export function booksdRoutes(): Route[] {
  const text = readFileSync(join(TOP, 'api/api_route.c'), 'utf8');
  const table = /api_route_table\[.*?\n};/s.exec(text)?.[0] ?? '';
  return [...table.matchAll(/"(\/[^"]*)",\s*"([A-Z, ]+)"/g)]
    .map(([, path, methods]) => ({ path, methods: methods.split(', ') }));
}

function rank(resource: string[], path: string[]): number[] | undefined {
  const ranks: number[] = [];
  for (const [index, part] of resource.entries()) {
    if (part.endsWith('+}'))
      return path.length > index ? [...ranks, 2] : undefined;
    if (index >= path.length)
      return undefined;
    const variable = part.startsWith('{') && path[index] !== '';
    if (part !== path[index] && !variable)
      return undefined;
    ranks.push(part === path[index] ? 0 : 1);
  }
  return resource.length === path.length ? ranks : undefined;
}

const segments = (path: string): string[] =>
  path === '/' ? [] : path.slice(1).split('/');

export function find(body: any, method: string, path: string): any {
  const candidates = Object.keys(body.paths)
    .map((key) => ({ key, ranks: rank(segments(key), segments(path)) }))
    .filter(({ ranks }) => ranks !== undefined)
    .sort((a, b) => {
      for (let i = 0; ; i++) {
        const [x, y] = [a.ranks![i], b.ranks![i]];
        if (x !== y || x === undefined)
          return (x ?? -1) - (y ?? -1);
      }
    });
  const item = body.paths[candidates[0]?.key ?? ''];
  return item?.[method.toLowerCase()] ??
    item?.['x-amazon-apigateway-any-method'];
}
