// A provider made of oidc-provider, a certified one, with its development
// pages: any log-in name and password will do.
import fs from 'node:fs'
import https from 'node:https'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [modules, dir, redirect, bye, backchannel, par] = process.argv.slice(2)
const require = createRequire(pathToFileURL(modules + '/'))
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')).href)

const server = https.createServer({ key: fs.readFileSync(`${dir}/key.pem`), cert: fs.readFileSync(`${dir}/cert.pem`) })
server.listen(0, '127.0.0.1', () => {
  const issuer = `https://127.0.0.1:${server.address().port}`
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'merlon', client_secret: 'the secret & more', redirect_uris: [redirect], response_types: ['code'], grant_types: ['authorization_code'],
      post_logout_redirect_uris: [bye], backchannel_logout_uri: backchannel, backchannel_logout_session_required: true,
    }],
    features: {
      pushedAuthorizationRequests: { enabled: par === 'par' }, backchannelLogout: { enabled: true },
      rpInitiatedLogout: { enabled: true }, devInteractions: { enabled: true },
    },
    pkce: { required: () => true },
    cookies: { keys: ['a secret of this test'] },
    scopes: ['openid', 'email', 'profile', 'groups'],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['preferred_username'], groups: ['groups'], acr: null, auth_time: null, iss: null, sid: null },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@corp.example`, email_verified: true, preferred_username: id, groups: ['eng'] }),
    }),
    // It sends nothing to loopback addresses otherwise.
    fetch: (url, options) => globalThis.fetch(url, { ...options, dispatcher: undefined }),
  })
  provider.on('server_error', (_, err) => console.error(err))
  provider.on('backchannel.error', (_, err) => console.error(err))
  server.on('request', provider.callback())
  console.log(issuer)
})
