// Goal and method: see tests/it_dashboard.py, which starts this with the
// address of the page, the pid of ops and a folder for pictures.  It looks at
// the page in Chromium and prints what it found as one JSON object.
"use strict";
const {chromium} = require("playwright-core");
const [url, opsPid, folder, program] = process.argv.slice(2);
const facts = {problems: [], foreign: []};

const wide = page => page.evaluate(() => [
  document.documentElement.scrollWidth, document.documentElement.clientWidth]);
const text = (page, selector) => page.locator(selector).first().innerText();
const picture = (page, name) => page.screenshot(
  {path: `${folder}/${name}.png`, fullPage: true});
// The page hears of the system's theme a moment later.
const back = async (page, theme) => {
  await page.waitForFunction(
    name => document.documentElement.dataset.theme === name, theme);
  return page.evaluate(
    () => getComputedStyle(document.body).backgroundColor);
};

// How many pixels of a chart are not empty.
const painted = (page, id) => page.evaluate(name => {
  const canvas = document.getElementById(name);
  const data = canvas.getContext("2d").getImageData(
    0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
  return count;
}, id);

async function look(page) {
  facts.cards = await page.evaluate(() => Object.fromEntries(
    [...document.querySelectorAll("#cards .card")].map(
      card => [card.children[1].textContent, card.children[0].textContent])));
  facts.workers = await page.evaluate(() => [...document.querySelectorAll(
    "#workers tbody tr")].map(
    tr => [...tr.children].map(td => td.textContent)));
  facts.version = await text(page, "#version");
  facts.routes = await text(page, "#routes tbody");
  facts.answers = await text(page, "#answers");
  facts.database = await text(page, "#database");
  facts.events = await text(page, "#events");
  facts.deploy = await text(page, "#deploy");
  facts.painted = {};
  for (const id of ["rps", "latency", "heat", "ratio"])
    facts.painted[id] = await painted(page, id);
}

async function themes(page) {
  facts.light = await back(page, "light");
  await picture(page, "light");
  await page.emulateMedia({colorScheme: "dark"});
  facts.dark = await back(page, "dark");
  await picture(page, "dark");
  await page.locator("#theme").click(); // auto -> light
  facts.chosen = await back(page, "light");
  await page.locator("#theme").click();
  await page.emulateMedia({colorScheme: "light"});
  facts.chosenDark = await back(page, "dark");
  await page.reload();
  facts.kept = await back(page, "dark");
  await page.locator("#theme").click(); // dark -> auto
}

async function keyboard(page) {
  await page.reload(); // nothing has the focus
  facts.focused = [];
  for (let i = 0; i < 14; i++) {
    await page.keyboard.press("Tab");
    facts.focused.push(await page.evaluate(() => {
      const one = document.activeElement;
      return one.id || one.dataset.range || one.className;
    }));
    if (facts.focused.includes("rps")) break;
  }
  await page.waitForFunction(() => document.querySelector(
    '[data-read="rps"]').textContent.startsWith("now"));
  await page.keyboard.press("ArrowLeft");
  await page.waitForFunction(() => /^\d/.test(document.querySelector(
    '[data-read="rps"]').textContent));
  facts.label = await page.locator("#rps").getAttribute("aria-label");
  await page.keyboard.press("Escape");
}

// Twelve hours of seconds, then what is kept.
async function feed(page) {
  facts.fed = await page.evaluate(() => {
    const {add, replace, points} = window.dashboard;
    const first = Date.now() - 43200e3;
    let most = 0, sum = 0;
    replace([]);
    for (let i = 0; i < 43200; i++) {
      const heat = new Array(16).fill(0);
      heat[3 + i % 5] = 10;
      heat[10] = i % 600 < 60 ? 3 : 0;
      add({t: first + i * 1000, rps: 1000 + 600 * Math.sin(i / 2500),
        p50: 0.2, p99: 2 + i % 7, p999: i === 40000 ? 777 : 9,
        hit: i % 3 ? 0.9 : null, errors: i % 900 < 5 ? 40 : 0,
        busy: 40 + 20 * Math.sin(i / 900), connections: 8, heat});
      most = Math.max(most, points().length);
    }
    for (const p of points()) sum += p.heat.reduce((a, b) => a + b, 0);
    const kept = points();
    return {most, kept: kept.length, heat: sum,
      hours: (kept[kept.length - 1].t - kept[0].t) / 3600e3,
      peak: Math.max(...kept.map(p => p.p999))};
  });
  await page.locator('[data-range="36000"]').click();
  await page.waitForTimeout(300);
  await picture(page, "hours");
  await page.locator('[data-range="600"]').click();
}

async function phone(page) {
  await page.setViewportSize({width: 390, height: 844});
  await page.waitForTimeout(300);
  facts.phone = await wide(page);
  await picture(page, "phone");
  await page.setViewportSize({width: 320, height: 600});
  facts.small = await wide(page);
}

// Foreign texts stay texts; what makes no sense stops nothing.
async function hostile(page) {
  facts.hostile = await page.evaluate(() => {
    const {add, replace} = window.dashboard;
    for (const bad of [null, {}, {t: "x"}, {t: 1e15, heat: "x", rps: NaN}])
      add(bad);
    replace({points: [{t: 5, heat: [1, "2", null]}], bands: "no"});
    return window.dashboard.points().length;
  });
}

async function main() {
  const browser = await chromium.launch({executablePath: program,
    args: ["--no-sandbox", "--disable-gpu"]});
  const context = await browser.newContext({colorScheme: "light",
    viewport: {width: 1280, height: 900}});
  const page = await context.newPage();
  page.on("pageerror", error => facts.problems.push(String(error)));
  page.on("console", message => {
    if (message.type() === "error" && !/ERR_/.test(message.text()))
      facts.problems.push(message.text());
  });
  page.on("request", request => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:"))
      facts.foreign.push(request.url());
  });
  await page.goto(url);
  await page.waitForFunction(() => document.getElementById("live")
    .textContent === "live");
  await page.waitForFunction(() => {
    const card = document.querySelector("#cards .card b");
    return card && parseFloat(card.textContent) > 0 &&
      window.dashboard.points().length >= 5;
  });
  await page.waitForTimeout(300);
  await look(page);
  await themes(page);
  await keyboard(page);
  await feed(page);
  await phone(page);
  await hostile(page);
  process.kill(Number(opsPid));
  await page.waitForFunction(pid => {
    const said = document.getElementById("deploy").textContent;
    return /operationspid \d+/.test(said) && !said.includes(`pid ${pid},`) &&
      document.getElementById("live").textContent === "live";
  }, opsPid);
  facts.again = await page.evaluate(() => window.dashboard.points().length);
  await browser.close();
  console.log(JSON.stringify(facts));
}

main().catch(error => {
  console.error(error);
  process.exit(1);
});
