'use strict';
// Looks for a number that, written behind the token, makes SHA-256 (FIPS 180-4)
// begin with so many zero bits. Whole blocks of the token are worked in once;
// each try is then one block.
const K = new Uint32Array([
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
]);
const start = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
const W = new Int32Array(64);

// block works the 16 words in W into h and puts the result into out.
const block = (h, out) => {
  for (let i = 16; i < 64; i++) {
    const x = W[i - 15], y = W[i - 2];
    const s0 = (x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ x >>> 3;
    const s1 = (y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ y >>> 10;
    W[i] = W[i - 16] + s0 + W[i - 7] + s1 | 0;
  }
  let a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], k = h[7];
  for (let i = 0; i < 64; i++) {
    const s1 = (e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7);
    const t1 = k + s1 + (e & f ^ ~e & g) + K[i] + W[i] | 0;
    const s0 = (a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10);
    const t2 = s0 + (a & b ^ a & c ^ b & c) | 0;
    k = g; g = f; f = e; e = d + t1 | 0;
    d = c; c = b; b = a; a = t1 + t2 | 0;
  }
  out[0] = h[0] + a; out[1] = h[1] + b; out[2] = h[2] + c; out[3] = h[3] + d;
  out[4] = h[4] + e; out[5] = h[5] + f; out[6] = h[6] + g; out[7] = h[7] + k;
};

const load = (bytes, from) => {
  for (let i = 0; i < 16; i++) {
    const j = from + 4 * i;
    W[i] = bytes[j] << 24 | bytes[j + 1] << 16 | bytes[j + 2] << 8 | bytes[j + 3];
  }
};

const solve = (token, bits) => {
  const text = Uint8Array.from(token, (c) => c.charCodeAt(0));
  let mid = Int32Array.from(start);
  let done = 0;
  for (; done + 64 <= text.length; done += 64) {
    load(text, done);
    const next = new Int32Array(8);
    block(mid, next);
    mid = next;
  }
  const rest = text.length - done; // with 16 digits and the length it fits into one block
  const last = new Uint8Array(64);
  last.set(text.subarray(done));
  const out = new Int32Array(8);
  const enough = 32 - bits; // at most 24 bits are asked for
  let told = performance.now();
  for (let n = 0; ; n++) {
    const digits = String(n);
    let p = rest;
    for (let i = 0; i < digits.length; i++) last[p++] = digits.charCodeAt(i);
    const length = 8 * (done + p);
    last[p++] = 0x80;
    last.fill(0, p);
    last[62] = length >>> 8;
    last[63] = length;
    load(last, 0);
    block(mid, out);
    if (out[0] >>> enough === 0) {
      postMessage({ nonce: digits });
      return;
    }
    if ((n & 0x3fff) === 0x3fff && performance.now() - told > 100) {
      told = performance.now();
      postMessage({ tried: n + 1 });
    }
  }
};

onmessage = (e) => solve(e.data.token, e.data.bits);
