//! A browser, driven by the W3C's WebDriver protocol: the few calls of it that tests and the bench need, over the HTTP
//! client that xene has anyway.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::within;

/// How long a page may take to show what is waited for.
const DEADLINE: Duration = Duration::from_secs(20);
/// The member of an element's reference that names it.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A headless browser with one window. Ends with this.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
}

impl Browser {
    /// Starts one that has seen nothing.
    ///
    /// # Panics
    /// If the machine has no Chromium with its driver.
    #[track_caller]
    pub fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need a browser: apt-get install chromium chromium-driver");
        let mut lines = BufReader::new(driver.stdout.take().expect("its output is piped")).lines();
        let told = lines.find_map(|line| {
            let line = line.ok()?;
            line.split_once("started successfully on port ").map(|(_, port)| port.trim_end_matches('.').to_owned())
        });
        let server = format!("http://127.0.0.1:{}", told.expect("chromedriver tells its port"));
        // What it prints later shall not block it.
        std::thread::spawn(move || lines.for_each(drop));
        let arguments = [
            "--headless=new",
            // These tests run as root in CI, where the sandbox can't be had.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,1000",
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        let browser = Self { driver, session: server, agent };
        let session = browser.post("/session", &wanted);
        browser.with_session(session["sessionId"].as_str().expect("a session has an id"))
    }

    fn with_session(mut self, id: &str) -> Self {
        self.session = format!("{}/session/{id}", self.session);
        self
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        self.try_post(path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn try_post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request = self.agent.post(format!("{}{path}", self.session)).header("content-type", "application/json");
        read(request.send(body.to_string().as_bytes()))
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        read(self.agent.get(format!("{}{path}", self.session)).call()).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Opens an address, and waits until it is loaded.
    #[track_caller]
    pub fn open(&self, address: &str) {
        self.post("/url", &json!({"url": address}));
    }

    /// Of the page that is open.
    #[track_caller]
    pub fn address(&self) -> String {
        self.get("/url").as_str().unwrap_or_default().to_owned()
    }

    /// What a script returns.
    #[track_caller]
    pub fn script(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// What a script hands to its last argument.
    #[track_caller]
    pub fn script_async(&self, script: &str) -> Value {
        self.post("/execute/async", &json!({"script": script, "args": []}))
    }

    fn find(&self, selector: &str) -> Result<String, String> {
        let found = self.try_post("/element", &json!({"using": "css selector", "value": selector}))?;
        found[ELEMENT].as_str().map(str::to_owned).ok_or_else(|| found.to_string())
    }

    /// Clicks as a person does: what is hidden or covered can't be clicked.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        within(DEADLINE, &format!("click {selector}"), || {
            let element = self.find(selector)?;
            self.try_post(&format!("/element/{element}/click"), &json!({})).map(drop)
        });
    }

    /// Types into a field, in place of what it holds.
    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        let element = self.find(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
        self.post(&format!("/element/{element}/clear"), &json!({}));
        self.post(&format!("/element/{element}/value"), &json!({"text": text}));
    }

    /// Presses keys in whatever has the focus.
    #[track_caller]
    pub fn press(&self, key: &str) {
        let actions = [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        self.post("/actions", &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}));
    }

    /// What a person reads of the first such element; nothing if there is none.
    pub fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({})?.innerText ?? ''", json!(selector));
        self.script(&script).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page shows a text within an element.
    #[track_caller]
    pub fn shows(&self, selector: &str, text: &str) {
        within(DEADLINE, &format!("{selector} shows {text:?}"), || {
            let shown = self.text(selector);
            if shown.contains(text) { Ok(()) } else { Err(format!("{}: {shown}", self.address())) }
        });
    }

    /// Sets what the style sheet may ask for, such as a dark scheme.
    #[track_caller]
    pub fn emulate(&self, feature: &str, value: &str) {
        let params = json!({"features": [{"name": feature, "value": value}]});
        self.post("/goog/cdp/execute", &json!({"cmd": "Emulation.setEmulatedMedia", "params": params}));
    }

    /// Gives the window another size, in pixels; a narrow one is a phone's.
    #[track_caller]
    pub fn resize(&self, width: u32, height: u32) {
        self.post(
            "/goog/cdp/execute",
            &json!({
                "cmd": "Emulation.setDeviceMetricsOverride",
                "params": {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
            }),
        );
    }

    /// Notes from now on of each line of a run's log how late it is: the steps print the time in milliseconds, and the
    /// browser's clock is theirs. A line that nobody has opened is not there: the section opens by itself once it comes.
    #[track_caller]
    pub fn time_lines(&self) {
        self.script(
            "window.delays = new Map();
             new MutationObserver(() => {
               const now = Date.now();
               for (const line of document.querySelectorAll('#log-sections li')) {
                 const printed = Number(line.querySelector('.t')?.textContent.trim());
                 if (printed > 1e12 && !window.delays.has(line.id)) window.delays.set(line.id, now - printed);
               }
             }).observe(document.getElementById('log-sections'), {childList: true, subtree: true});",
        );
    }

    /// How late each of so many lines was, in milliseconds.
    ///
    /// # Errors
    /// With those that came, if it is not so many yet.
    pub fn delays_of(&self, lines: usize) -> Result<Vec<u64>, String> {
        let delays = self.script("return [...window.delays.values()]");
        let delays: Vec<u64> = delays.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        if delays.len() == lines { Ok(delays) } else { Err(format!("{delays:?}")) }
    }

    /// A picture of the window, as PNG.
    #[track_caller]
    pub fn picture(&self) -> Vec<u8> {
        let text = self.get("/screenshot");
        base64::engine::general_purpose::STANDARD
            .decode(text.as_str().unwrap_or_default())
            .expect("a picture is base64")
    }

    /// What the browser complained of since it was last asked: errors, and what the policy refused.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        let entries = log.as_array().cloned().unwrap_or_default();
        let is_bad = |entry: &&Value| entry["level"] == "SEVERE" || entry["level"] == "WARNING";
        entries.iter().filter(is_bad).map(|entry| entry["message"].to_string()).collect()
    }
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, String> {
    let mut answer = answer.map_err(|error| error.to_string())?;
    let text = answer.body_mut().with_config().limit(64 << 20).read_to_string().map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    let value = value["value"].clone();
    if answer.status().is_success() { Ok(value) } else { Err(format!("{}: {}", value["error"], value["message"])) }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser that it started.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
