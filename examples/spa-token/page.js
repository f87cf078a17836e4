// The token lives in this variable for its five minutes, and nowhere else. The
// secret that gets the next one is in a cookie that no script can read.
let token = "", until = 0;

async function bearer() {
  if (Date.now() > until) {
    const res = await fetch("/.merlon/token", { method: "POST" });
    if (!res.ok) { location.href = "/.merlon/login?return_to=/"; return ""; }
    const got = await res.json();
    token = got.access_token;
    until = Date.now() + (got.expires_in - 30) * 1000;
  }
  return "Bearer " + token;
}

document.getElementById("call").onclick = async () => {
  const res = await fetch("/api/hello", { headers: { Authorization: await bearer() } });
  document.getElementById("answer").textContent = res.status + " " + await res.text();
};
