'use strict';
// Passkeys need a script; so do copying, printing and sending on by itself.
// Everything else on these pages works without one.
(() => {
  const say = (el, text) => { if (el) { el.textContent = text; el.hidden = text === ''; } };

  const bytes = (text) => {
    const b = atob(text.replace(/-/g, '+').replace(/_/g, '/'));
    return Uint8Array.from(b, (c) => c.charCodeAt(0)).buffer;
  };
  const text = (buffer) => {
    let b = '';
    for (const n of new Uint8Array(buffer)) b += String.fromCharCode(n);
    return btoa(b).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
  };

  // fromJSON turns the server's options into what the browser wants.
  const fromJSON = (o) => {
    o.challenge = bytes(o.challenge);
    if (o.user) o.user.id = bytes(o.user.id);
    for (const list of [o.allowCredentials, o.excludeCredentials]) {
      for (const c of list || []) c.id = bytes(c.id);
    }
    return o;
  };

  const toJSON = (c) => {
    const r = c.response;
    const response = { clientDataJSON: text(r.clientDataJSON) };
    if (r.attestationObject) {
      response.attestationObject = text(r.attestationObject);
      response.transports = r.getTransports ? r.getTransports() : [];
    } else {
      response.authenticatorData = text(r.authenticatorData);
      response.signature = text(r.signature);
      if (r.userHandle) response.userHandle = text(r.userHandle);
    }
    return JSON.stringify({
      id: c.id, rawId: text(c.rawId), type: c.type, response,
      clientExtensionResults: c.getClientExtensionResults(),
      authenticatorAttachment: c.authenticatorAttachment || undefined,
    });
  };

  let waiting = null; // the request for a passkey that autofill may answer

  const ask = async (form) => {
    const body = new URLSearchParams(new FormData(form));
    body.delete('answer');
    const res = await fetch(form.dataset.ask, {
      method: 'POST', body, credentials: 'same-origin', redirect: 'error', headers: { Accept: 'application/json' },
    });
    const a = await res.json();
    if (typeof a.go === 'string' && a.go.startsWith('/.merlon/')) location.assign(a.go);
    if (!res.ok) throw new Error(String(res.status));
    a.publicKey = fromJSON(a.options.publicKey || a.options);
    return a;
  };

  // send sends what the browser says to one question, which is not always the
  // last that was asked.
  const send = (form, asked, credential) => {
    const set = (name, value) => { const e = form.elements.namedItem(name); if (e && value) e.value = value; };
    set('ticket', asked.ticket);
    set('pending', asked.pending);
    set('answer', toJSON(credential));
    form.submit();
  };

  const run = async (form) => {
    const out = form.querySelector('[data-status]');
    if (waiting) { waiting.abort(); waiting = null; }
    say(out, form.dataset.busy);
    try {
      const asked = await ask(form);
      const { publicKey } = asked;
      const credential = form.dataset.passkey === 'create'
        ? await navigator.credentials.create({ publicKey })
        : await navigator.credentials.get({ publicKey });
      send(form, asked, credential);
    } catch (e) {
      say(out, e.name === 'InvalidStateError' ? form.dataset.known : form.dataset.failed);
    }
  };

  // suggest lets the browser offer passkeys where the name is typed.
  const suggest = async (form) => {
    if (!PublicKeyCredential.isConditionalMediationAvailable || !(await PublicKeyCredential.isConditionalMediationAvailable())) return;
    try {
      waiting = new AbortController();
      const { signal } = waiting;
      const asked = await ask(form);
      if (signal.aborted) return;
      send(form, asked, await navigator.credentials.get({ publicKey: asked.publicKey, mediation: 'conditional', signal }));
    } catch { /* nothing was chosen; the button is still there */ }
  };

  for (const form of document.querySelectorAll('form[data-passkey]')) {
    if (!window.PublicKeyCredential || !navigator.credentials) {
      say(form.querySelector('[data-status]'), form.dataset.unable);
      continue;
    }
    for (const b of form.querySelectorAll('button')) b.hidden = false;
    form.addEventListener('submit', (e) => { e.preventDefault(); run(form); });
    if ('suggest' in form.dataset) suggest(form);
  }

  for (const b of document.querySelectorAll('button[data-copy]')) {
    if (!navigator.clipboard) continue;
    b.hidden = false;
    b.addEventListener('click', async () => {
      const lines = [...document.querySelectorAll(b.dataset.copy)].map((e) => e.textContent.trim());
      try {
        await navigator.clipboard.writeText(lines.join('\n') + '\n');
        say(document.querySelector('[data-copied]'), b.dataset.done);
      } catch { /* they can still be selected by hand */ }
    });
  }
  for (const b of document.querySelectorAll('button[data-print]')) {
    b.hidden = false;
    b.addEventListener('click', () => print());
  }
  const auto = document.querySelector('form[data-auto]');
  if (auto) auto.submit();
})();
