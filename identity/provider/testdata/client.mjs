// An application made of openid-client, a certified relying party. It is told
// where to begin and prints where the browser has to go; then it reads where
// the browser came back, and prints what it learnt.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import readline from 'node:readline'

const [modules, issuer, id, secret, redirect] = process.argv.slice(2)
const require = createRequire(pathToFileURL(modules + '/'))
const client = await import(pathToFileURL(require.resolve('openid-client')).href)

const config = await client.discovery(new URL(issuer), id, undefined, client.ClientSecretBasic(secret))
client.enableNonRepudiationChecks(config)
const verifier = client.randomPKCECodeVerifier()
const nonce = client.randomNonce()
const state = client.randomState()
const to = client.buildAuthorizationUrl(config, {
  redirect_uri: redirect, scope: 'openid profile email groups offline_access', state, nonce, max_age: '300',
  code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
})
console.log(to.href)
for await (const line of readline.createInterface({ input: process.stdin })) {
  const tokens = await client.authorizationCodeGrant(config, new URL(line), {
    pkceCodeVerifier: verifier, expectedNonce: nonce, expectedState: state, maxAge: 300, idTokenExpected: true,
  })
  const info = await client.fetchUserInfo(config, tokens.access_token, tokens.claims().sub)
  const next = await client.refreshTokenGrant(config, tokens.refresh_token)
  const active = await client.tokenIntrospection(config, next.access_token)
  await client.tokenRevocation(config, next.refresh_token)
  const ended = await client.tokenIntrospection(config, next.access_token)
  const out = client.buildEndSessionUrl(config, { id_token_hint: tokens.id_token })
  console.log(JSON.stringify({ claims: tokens.claims(), info, active: active.active, ended: !ended.active, out: out.href }))
  process.exit(0)
}
