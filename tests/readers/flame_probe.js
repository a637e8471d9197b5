// Put into a copy of our flame graph behind its own script: uses the graph as a person would, and
// writes what came of it to the graph's end.
(function () {
  const svg = document.getElementById('memkit-flame'), get = id => document.getElementById(id);
  const rects = [...document.querySelectorAll('#frames rect')];
  const name = r => r.querySelector('title').textContent.split('\n')[0];
  const shown = () => rects.filter(r => getComputedStyle(r).display !== 'none');
  const num = (e, a) => parseFloat(e.getAttribute(a));
  const width = r => num(r, 'width');
  const named = n => rects.find(r => name(r) === n);
  const row = r => r.parentNode;
  const page = svg.viewBox.baseVal.width, facts = {};

  const rgb = s => s.match(/[0-9.]+/g).map(Number).slice(0, 3);
  const light = c => c.map(v => v / 255).map(v =>
    v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (a, b) => {
    const l = [light(rgb(a)), light(rgb(b))].sort((x, y) => y - x);
    return (l[0] + 0.05) / (l[1] + 0.05);
  };
  const style = e => getComputedStyle(e);

  // Frames of each row do not overlap, and lie within the page and within one of the row below.
  function overlaps() {
    let wrong = 0;
    const rows = [...get('frames').children].map(g => shown().filter(r => row(r) === g));
    rows.forEach((rs, d) => rs.forEach((r, i) => {
      const x = num(r, 'x'), end = x + width(r);
      if (end > page + 0.01 || x < 0) wrong++;
      if (i > 0 && num(rs[i - 1], 'x') + width(rs[i - 1]) > x + 0.01) wrong++;
      if (d > 0 && !rows[d - 1].some(b => num(b, 'x') <= x + 0.01 &&
                                          num(b, 'x') + width(b) >= end - 0.01)) wrong++;
    }));
    return wrong;
  }
  // Text that sticks out of its frame.
  function outside() {
    return [...document.querySelectorAll('#frames text')].filter(t => {
      const a = t.getBoundingClientRect(), b = t.previousElementSibling.getBoundingClientRect();
      return a.left < b.left - 0.5 || a.right > b.right + 0.5;
    }).length;
  }
  // All coloured frames, also those whose name does not fit: zooming makes room for it.
  function least() {
    const ink = style(get('title')).fill;
    return Math.min(contrast(ink, style(svg).backgroundColor),
      contrast(style(get('facts')).fill, style(svg).backgroundColor),
      ...shown().map(r => contrast(ink, style(r).fill)));
  }
  const click = e => e.dispatchEvent(new MouseEvent('click', { bubbles: true }));
  const press = (e, key, more) =>
    e.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true, ...more }));
  function seek(text) {
    get('search').value = text;
    get('search').dispatchEvent(new Event('input'));
  }

  facts.tools = style(get('tools')).display !== 'none';
  facts.page = Math.round(page);
  facts.frames = shown().length;
  facts.overlaps = overlaps();
  facts.outside = outside();
  facts.contrast = least().toFixed(2);
  facts.ground = style(svg).backgroundColor.replace(/ /g, '');
  facts.dark = matchMedia('(prefers-color-scheme: dark)').matches;

  const target = named('TARGET'), start = width(target);
  const above = rects.filter(r => row(r) === row(target).nextElementSibling &&
    num(r, 'x') >= num(target, 'x') - 0.01 &&
    num(r, 'x') + width(r) <= num(target, 'x') + start + 0.01);
  const share = above.reduce((sum, r) => sum + width(r), 0) / start;
  click(target);
  facts.zoomed = width(target) === page;
  facts.zoom_share = Math.abs(above.reduce((sum, r) => sum + width(r), 0) / page - share) < 0.02;
  facts.zoom_hides = shown().length < facts.frames;
  facts.zoom_overlaps = overlaps();
  facts.zoom_outside = outside();
  facts.zoom_contrast = least().toFixed(2);
  facts.zoom_told = get('info').textContent.startsWith('TARGET: ');
  click(get('reset'));
  facts.reset = width(target) === start && shown().length === facts.frames;

  press(svg, 'f', { ctrlKey: true });
  facts.ctrl_f = document.activeElement === get('search');
  seek('PATTERN');
  const hits = rects.filter(r => r.classList.contains('hit'));
  facts.hits = hits.length;
  facts.hits_right = rects.every(r => /PATTERN/.test(name(r)) === r.classList.contains('hit'));
  facts.matched = get('matched').textContent.replace(/ /g, '');
  facts.hit_contrast = least().toFixed(2);
  seek('(');
  facts.wrong = get('matched').className === 'bad';
  press(svg, 'Escape');
  facts.cleared = document.querySelectorAll('.hit').length === 0 && get('search').value === '';

  rects[0].dispatchEvent(new MouseEvent('mouseover', { bubbles: true }));
  facts.hover = get('info').textContent.startsWith('all: ');
  rects[0].focus();
  press(rects[0], 'ArrowUp');
  const focused = document.activeElement;
  facts.key_up = row(focused) === row(rects[0]).nextElementSibling;
  press(focused, 'Enter');
  facts.key_zoom = width(focused) === page;
  press(focused, 'ArrowDown');
  facts.key_down = document.activeElement === rects[0];
  press(rects[0], 'Enter');
  facts.key_reset = shown().length === facts.frames;

  const out = document.createElementNS('http://www.w3.org/2000/svg', 'desc');
  out.textContent = 'PROBE ' + Object.entries(facts).map(e => e.join('=')).join(' ') + ' END';
  svg.append(out);
}());
