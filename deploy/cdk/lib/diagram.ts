/*
 * The picture of every connection, drawn from the list of hops.  Red: not
 * encrypted.
 */
import type { Config } from './config';
import { hops } from './hops';

interface Box {
  readonly x: number;
  readonly y: number;
  readonly text: string;
}

const BOXES: Record<string, Box> = {
  client: { x: 20, y: 60, text: 'clients' },
  waf: { x: 190, y: 60, text: 'WAF' },
  gateway: { x: 360, y: 60, text: 'API Gateway' },
  nlb: { x: 360, y: 210, text: 'NLB' },
  link: { x: 360, y: 210, text: 'VPC link V2' },
  alb: { x: 360, y: 360, text: 'ALB' },
  task: { x: 360, y: 510, text: 'booksd tasks' },
  database: { x: 360, y: 660, text: 'RDS PostgreSQL' },
  endpoints: { x: 660, y: 510, text: 'VPC endpoints' },
  s3: { x: 20, y: 510, text: 'S3 (layers)' },
  rotation: { x: 660, y: 660, text: 'rotation' },
  hook: { x: 660, y: 360, text: 'validation hook' },
};
const WIDTH = 130;
const HEIGHT = 44;

/* Before the network begins: these are the gateway's, not security groups'. */
function outside(config: Config): [string, string, string, boolean][] {
  return [
    ['client', 'waf', '443 HTTPS, TLS 1.2+', true],
    ['waf', 'gateway', '', true],
    ['gateway', config.api.link === 'v1' ? 'nlb' : 'link',
      config.api.link === 'v1' ? '443 HTTPS through VPC link' : '443 HTTPS',
      true],
  ];
}

function edge(from: Box, to: Box): [number, number, number, number] {
  const middle = (box: Box) => [box.x + WIDTH / 2, box.y + HEIGHT / 2];
  const [fx, fy] = middle(from);
  const [tx, ty] = middle(to);
  if (Math.abs(ty - fy) < HEIGHT)
    return tx > fx ? [fx + WIDTH / 2, fy, tx - WIDTH / 2, ty]
      : [fx - WIDTH / 2, fy, tx + WIDTH / 2, ty];
  return ty > fy ? [fx, fy + HEIGHT / 2, tx, ty - HEIGHT / 2]
    : [fx, fy - HEIGHT / 2, tx, ty + HEIGHT / 2];
}

function arrow(from: string, to: string, text: string, safe: boolean): string {
  const [x1, y1, x2, y2] = edge(BOXES[from]!, BOXES[to]!);
  const colour = safe ? '#22663a' : '#c01818';
  const level = y1 === y2;
  const x = (x1 + x2) / 2 + (level ? 0 : 8);
  const y = (y1 + y2) / 2 + (level ? -8 : 4);
  return `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" ` +
    `stroke="${colour}" stroke-width="2" marker-end="url(#${
      safe ? 'safe' : 'open'})"/>\n<text x="${x}" y="${y}" fill="${colour}" ` +
    `font-size="11"${level ? ' text-anchor="middle"' : ''}>${text}</text>`;
}

function box({ x, y, text }: Box): string {
  return `<rect x="${x}" y="${y}" width="${WIDTH}" height="${HEIGHT}" rx="6" ` +
    'fill="#f4f4f4" stroke="#444"/>\n' +
    `<text x="${x + WIDTH / 2}" y="${y + 27}" text-anchor="middle" ` +
    `font-size="13">${text}</text>`;
}

export function diagram(config: Config): string {
  const arrows = [
    ...outside(config).map((hop) => arrow(...hop)),
    ...hops(config).map((hop) => arrow(hop.from, hop.to,
      `${hop.port} ${hop.protocol}, ${hop.encryption}`,
      hop.encryption !== 'none')),
  ];
  const used = new Set([...outside(config).flatMap(([from, to]) => [from, to]),
    ...hops(config).flatMap(({ from, to }) => [from, to])]);
  const boxes = Object.entries(BOXES).filter(([name]) => used.has(name))
    .map(([, value]) => box(value));
  const marker = (id: string, colour: string): string =>
    `<marker id="${id}" viewBox="0 0 10 10" refX="9" refY="5" ` +
    'markerWidth="7" markerHeight="7" orient="auto-start-reverse">' +
    `<path d="M 0 0 L 10 5 L 0 10 z" fill="${colour}"/></marker>`;
  return [
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 730" ' +
      'font-family="sans-serif">',
    '<defs>', marker('safe', '#22663a'), marker('open', '#c01818'), '</defs>',
    '<rect width="900" height="730" fill="white"/>',
    '<rect x="10" y="170" width="880" height="550" rx="10" fill="none" ' +
      'stroke="#888" stroke-dasharray="6 4"/>',
    `<text x="20" y="190" font-size="12" fill="#555">VPC ${config.vpcCidr}, ` +
      'no internet or NAT gateway</text>',
    `<text x="20" y="30" font-size="15">AWSome Books, ${config.environment}` +
      '</text>',
    ...boxes, ...arrows, '</svg>', '',
  ].join('\n');
}
