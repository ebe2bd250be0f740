// The cluster at a glance. Everything shown comes from the public REST API; this page has no
// privileges of its own. It keeps the token for this browser tab only.

const REFRESH_MS = 2000;      // what a person perceives as live, and a negligible load
const SAMPLES = 90;           // three minutes of refreshes in the small charts
const REQUEST_MS = 8000;      // a healthy node answers in milliseconds

const $ = (id) => document.getElementById(id);
const state = { token: sessionStorage.token, user: sessionStorage.user, timer: 0, history: new Map() };

class Refused extends Error {
  constructor(status, code, message) { super(message); this.status = status; this.code = code; }
}

async function call(method, path, body) {
  const headers = body ? { 'content-type': 'application/json' } : {};
  return (await exchange(method, path, headers, body && JSON.stringify(body))).value;
}

async function exchange(method, path, headers, body) {
  if (state.token) headers.authorization = `Bearer ${state.token}`;
  const response = await fetch(`/api/v5${path}`, {
    method, headers, body, cache: 'no-store', signal: AbortSignal.timeout(REQUEST_MS),
  });
  const text = await response.text();
  let value = null;
  try { value = text ? JSON.parse(text) : null; } catch { /* not JSON: only its status counts */ }
  if (!response.ok) {
    throw new Refused(response.status, value?.code, value?.message ?? `HTTP ${response.status}`);
  }
  return { value, text, warning: response.headers.get('warning') };
}

function show(id) {
  for (const part of ['login', 'password', 'overview']) $(part).hidden = part !== id;
  $('session').hidden = !state.token;
  $('who').textContent = state.user ?? '';
  if (id !== 'overview') clearTimeout(state.timer);
}

function problem(text) {
  $('problem').hidden = !text;
  $('problem').textContent = text ?? '';
}

function formError(form, text) {
  const place = form.querySelector('.error');
  place.hidden = !text;
  place.textContent = text ?? '';
}

// Runs a form's action with its button disabled, and shows why it failed inside the form.
function onSubmit(form, action) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const button = form.querySelector('[type=submit]');
    button.disabled = true;
    formError(form);
    try { await action(form.elements); } catch (error) { formError(form, words(error)); }
    button.disabled = false;
  });
}

function words(error) {
  if (error instanceof Refused) {
    if (error.code === 'BAD_USERNAME_OR_PWD') return 'User name or password is wrong.';
    return error.message;
  }
  if (error.name === 'TimeoutError') return 'The node did not answer in time.';
  return 'The node cannot be reached.';
}

async function login(username, password) {
  state.token = undefined;
  const { token } = await call('POST', '/login', { username, password });
  Object.assign(state, { token, user: username });
  Object.assign(sessionStorage, { token, user: username });
}

function forget() {
  state.token = undefined;
  sessionStorage.removeItem('token');
  $('cluster-name').textContent = '';
}

function askPassword(required, old) {
  const form = $('password');
  form.reset();
  formError(form);
  form.elements.username.value = state.user;
  form.elements.old.value = old ?? '';
  $('why').textContent = required
    ? `The user ${state.user} still has the password every new installation starts with. Choose your own to go on.`
    : `For the user ${state.user}.`;
  $('not-now').hidden = required;
  show('password');
  (old ? form.elements.new : form.elements.old).focus();
}

onSubmit($('login'), async ({ username, password }) => {
  await login(username.value, password.value);
  const secret = password.value;
  password.value = '';
  await refresh(secret);
});

onSubmit($('password'), async (fields) => {
  const fresh = fields.new.value;
  if (fresh !== fields.again.value) throw new Refused(0, '', 'The two new passwords differ.');
  const path = `/users/${encodeURIComponent(state.user)}/change_pwd`;
  await call('POST', path, { old_pwd: fields.old.value, new_pwd: fresh });
  await login(state.user, fresh);
  await refresh();
});

const PLAIN = 'text/plain';

async function drawConfiguration() {
  if (!$('configuration').open) return;
  const { text } = await exchange('GET', '/configs', { accept: PLAIN });
  $('in-force').textContent = text;
}

onSubmit($('configure'), async ({ text }) => {
  $('changed').textContent = '';
  const { warning } = await exchange('PUT', '/configs', { 'content-type': PLAIN }, text.value);
  // As the header has it: 299 - "sentence", 299 - "sentence"
  const warnings = (warning ?? '').split(/(?:^|, )299 - /).filter(Boolean);
  const sentences = ['Applied', ...warnings.map((quoted) => quoted.slice(1, -1))];
  $('changed').textContent = `${sentences.join('. ')}.`;
  text.value = '';
  await drawConfiguration();
});

$('configuration').addEventListener('toggle', async () => {
  try { await drawConfiguration(); } catch (error) { problem(words(error)); }
});

$('change').addEventListener('click', () => askPassword(false));
$('not-now').addEventListener('click', () => refresh());
$('logout').addEventListener('click', async () => {
  try { await call('POST', '/logout', { username: state.user }); } catch { /* it expires by itself */ }
  forget();
  problem();
  show('login');
});

async function refresh(password) {
  clearTimeout(state.timer);
  try {
    const asked = ['/nodes', '/cluster', '/metrics?aggregate=false', '/stats?aggregate=false',
      '/load_rebalance/global_status', '/alarms?activated=true', '/alarms?activated=false'];
    const answers = await Promise.all(asked.map((path) => call('GET', path)));
    const [nodes, cluster, metrics, stats, moving, active, ended] = answers;
    problem();
    show('overview');
    draw({ nodes, cluster, metrics, stats, moving }, Date.now());
    drawAlarms(active, ended);
  } catch (error) {
    if (error.code === 'PASSWORD_CHANGE_REQUIRED') { problem(); return askPassword(true, password); }
    if (error.status === 401) {
      forget();
      show('login');
      problem(error.code === 'TOKEN_TIME_OUT' ? 'Your session has ended. Sign in again.' : undefined);
      return;
    }
    show('overview');
    problem(`${words(error)} Showing the last known figures; trying again.`);
  }
  state.timer = setTimeout(refresh, REFRESH_MS);
}

// Rates are differences between two answers, so that they need nothing kept on the server.
function sample(node, counters, now) {
  const past = state.history.get(node) ?? { points: [] };
  const received = counters?.['messages.received'];
  const sent = counters?.['messages.sent'];
  if (received === undefined) {
    past.last = undefined;
  } else {
    if (past.last && received >= past.last.received && now > past.last.now) {
      const seconds = (now - past.last.now) / 1000;
      past.in = (received - past.last.received) / seconds;
      past.out = (sent - past.last.sent) / seconds;
      past.points = [...past.points, past.in + past.out].slice(-SAMPLES);
    }
    past.last = { received, sent, now };
  }
  state.history.set(node, past);
  return past;
}

const byNode = (rows) => new Map((rows ?? []).map((row) => [row.node, row]));

function draw({ nodes, cluster, metrics, stats, moving }, now) {
  const name = cluster.name ?? '';
  $('cluster-name').textContent = name;
  document.title = `Dunlin ${name}`;
  const [counters, gauges, leaving] = [byNode(metrics), byNode(stats), byNode(moving?.evacuations)];
  const giving = new Set((moving?.rebalances ?? []).flatMap((row) => row.donors));
  // Nodes publish their figures every few seconds; what they answer themselves is newer.
  const fresh = ({ node, live_connections, connections }) => {
    const of = gauges.get(node) ?? {};
    return {
      clients: of['live_connections.count'] ?? live_connections,
      sessions: of['connections.count'] ?? connections,
      subscriptions: of['subscriptions.count'],
    };
  };
  const rows = nodes.map((node) => ({
    ...node,
    ...fresh(node),
    rate: sample(node.node, counters.get(node.node), now),
    evacuation: leaving.get(node.node),
    gives: giving.has(node.node),
    up: node.node_status !== 'stopped',
  }));
  const running = rows.filter((row) => row.up);
  const sum = (pick) => running.reduce((total, row) => total + (pick(row) ?? 0), 0);
  // Counters of a node may be known to itself alone; then the sum is this node's, and says so.
  const everywhere = running.every((row) => counters.has(row.node));
  const where = everywhere ? '' : ' on this node';
  $('totals').replaceChildren(
    total(`${running.length} / ${rows.length}`, 'nodes running'),
    total(count(sum((row) => row.clients)), 'clients connected'),
    total(count(running[0]?.cluster_sessions), 'sessions'),
    total(count(sum((row) => row.subscriptions)), 'subscriptions'),
    total(rateText(sum((row) => row.rate.in)), `messages in /s${where}`),
    total(rateText(sum((row) => row.rate.out)), `messages out /s${where}`),
  );
  $('nodes').replaceChildren(...rows.map((row) => nodeRow(row, cluster.self)));
  $('fresh').textContent = `as of ${new Date(now).toLocaleTimeString()}`;
  $('alone').hidden = rows.length !== 1;
  $('join').textContent = `emqx ctl cluster join ${cluster.self}`;
}

function total(value, label) {
  return element('li', {}, element('b', {}, value), element('span', {}, label));
}

function nodeRow(row, self) {
  const cell = (label, value, more = '') => element('td', { 'data-label': label, class: more }, ...[value].flat());
  const isUp = row.up;
  const about = [isUp ? row.version : '', row.node === self ? 'this node' : '', isUp ? memory(row) : ''];
  const name = element('th', { scope: 'row', class: 'name' },
    element('span', {}, row.node, element('small', {}, about.filter(Boolean).join(' · '))));
  const rate = (value, sum) => [element('span', { class: 'value' }, `${rateText(value)} /s`),
    element('small', {}, `${count(sum)} in all`)];
  return element('tr', { class: isUp ? '' : 'stopped-row' },
    name,
    element('td', { class: 'is-state' }, stateOf(row)),
    cell('Clients', isUp ? count(row.clients) : '–', 'number'),
    cell('Sessions', isUp ? count(row.sessions) : '–', 'number'),
    cell('Subscriptions', isUp ? count(row.subscriptions) : '–', 'number'),
    cell('Messages in', isUp ? rate(row.rate.in, row.rate.last?.received) : '–', 'number wide'),
    cell('Messages out', isUp ? rate(row.rate.out, row.rate.last?.sent) : '–', 'number wide'),
    isUp ? element('td', { class: 'chart' }, spark(row.rate.points)) : element('td', { class: 'chart' }),
    cell('Uptime', isUp ? duration(row.uptime) : '–', 'number'));
}

const STAGES = {
  waiting_health_check: ({ current_connected }) => `starts soon, ${count(current_connected)} clients`,
  evicting_conns: (s) => `${count(s.current_connected)} of ${count(s.initial_connected)} clients left`,
  waiting_takeover: (s) => `clients gone, ${count(s.current_sessions)} sessions left`,
  evicting_sessions: (s) => `${count(s.current_sessions)} sessions left to move`,
  prohibiting: () => 'empty, can be stopped',
};

function stateOf({ node_status, evacuation, gives }) {
  if (gives) {
    return element('span', {}, element('span', { class: 'state evacuating' }, 'rebalancing'),
      element('small', {}, 'gives clients to other nodes'));
  }
  if (!evacuation) return element('span', { class: `state ${node_status}` }, node_status);
  const stage = STAGES[evacuation.state]?.(evacuation.stats) ?? evacuation.state;
  return element('span', {}, element('span', { class: 'state evacuating' }, 'evacuating'),
    element('small', {}, stage));
}

function drawAlarms(active, ended) {
  const [now, past] = [active?.data ?? [], ended?.data ?? []];
  $('alarm-count').textContent = now.length ? `${now.length} active` : '';
  const none = element('li', { class: 'none' }, 'No active alarms.');
  $('alarms').replaceChildren(...(now.length ? now.map(alarm) : [none]));
  $('ended').hidden = !past.length;
  $('ended').querySelector('summary').textContent = `${past.length} ended`;
  $('history').replaceChildren(...past.map(alarm));
}

function alarm(row) {
  const time = (text) => new Date(text).toLocaleString();
  const lasted = duration(row.duration);
  const when = row.deactivate_at ? `${time(row.deactivate_at)}, lasted ${lasted}` : `since ${time(row.activate_at)}`;
  return element('li', {}, element('b', {}, row.message || row.name),
    element('span', { class: 'when' }, when),
    element('span', { class: 'where' }, `${row.name} · ${row.node}`));
}

$('clear').addEventListener('click', async () => {
  try { await call('DELETE', '/alarms'); } catch (error) { problem(words(error)); }
  await refresh();
});

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function spark(points) {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg');
  svg.setAttribute('class', 'spark');
  svg.setAttribute('viewBox', `0 0 ${SAMPLES - 1} 28`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  if (points.length > 1) {
    const top = Math.max(...points, 1);
    const from = SAMPLES - points.length;
    const path = document.createElementNS(space, 'path');
    path.setAttribute('d', points.map((value, i) =>
      `${i ? 'L' : 'M'}${from + i} ${(26 - 24 * value / top).toFixed(1)}`).join(''));
    svg.append(path);
  }
  return svg;
}

const count = (value) => (value === undefined ? '–' : value.toLocaleString());

function rateText(value) {
  if (value === undefined) return '–';
  return value > 0 && value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString();
}

function duration(ms) {
  const seconds = Math.floor(ms / 1000);
  const [d, h, m] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${seconds % 60} s` : `${seconds} s`;
}

function memory(row) {
  const bytes = row.memory_process;
  return bytes ? `${(bytes / 1048576).toFixed(0)} MB` : '';
}

if (state.token) refresh(); else show('login');
