// Put into speedscope's page before its script: keeps what it draws as text on its canvases, and
// writes that to the page's end when a profile has been drawn.
(function () {
  const texts = new Set(), fill = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...at) {
    texts.add(text);
    return fill.call(this, text, ...at);
  };
  let before = -1;
  const watch = setInterval(() => {
    if (texts.size === 0 || texts.size !== before) {
      before = texts.size;
      return;
    }
    clearInterval(watch);
    const out = document.createElement('output');
    out.textContent = 'PROBE ' + [...texts].join('\n') + '\nEND';
    document.body.append(out);
  }, 500);
}());
