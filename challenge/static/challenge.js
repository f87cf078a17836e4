'use strict';
// Starts the work, shows how it goes and sends the answer. Where it cannot be
// done, it waits instead, as a browser without scripts does.
(() => {
  // A link and not a redirect, which would hold what the backend answers with
  // against this page's policy for forms.
  const go = document.querySelector('a[data-go]');
  if (go) {
    location.replace(go.href + location.hash);
    return;
  }
  const form = document.querySelector('form[data-worker]');
  if (!form) return;
  const shown = form.querySelector('[data-work]');
  const bar = form.querySelector('progress');
  const status = form.querySelector('[data-status]');
  const button = form.querySelector('button');
  const { token, nonce } = form.elements;
  const bits = Number(form.dataset.bits);
  const likely = 2 ** bits;
  let started = false;

  form.hidden = false;
  // What stands behind # is kept by browsers when they are sent on.
  if (location.hash) form.action += location.hash;

  const wait = () => {
    status.textContent = status.dataset.slow;
    shown.hidden = true;
    setTimeout(() => location.replace(form.dataset.waitUrl), 1000 * Number(form.dataset.wait));
  };

  const work = () => {
    if (started) return;
    started = true;
    button.hidden = true;
    shown.hidden = false;
    status.textContent = status.dataset.working;
    let worker;
    try {
      worker = new Worker(form.dataset.worker);
    } catch {
      wait();
      return;
    }
    worker.onerror = () => { worker.terminate(); wait(); };
    worker.onmessage = (e) => {
      if (typeof e.data.nonce === 'string') {
        worker.terminate();
        bar.value = 100;
        bar.textContent = '100 %';
        status.textContent = status.dataset.done;
        nonce.value = e.data.nonce;
        form.submit();
        return;
      }
      // How long it takes is chance; this is how likely it was done by now.
      const percent = Math.min(99, Math.round(100 * (1 - Math.exp(-e.data.tried / likely))));
      bar.value = percent;
      bar.textContent = percent + ' %';
    };
    worker.postMessage({ token: token.value, bits });
  };

  form.addEventListener('submit', (e) => { e.preventDefault(); work(); });
  // A page that is come back to from the browser's memory begins anew.
  addEventListener('pageshow', (e) => { if (e.persisted) location.reload(); });
  if ('auto' in form.dataset) work();
})();
