//! Somebody who starts runs, sends deliveries and reads logs meanwhile, and remembers what was acknowledged.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};
use xene_test_support::{cluster::Cluster, sim::Random};

/// Where and how to ask the controller.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    agent: ureq::Agent,
    server: String,
    token: String,
}

impl Api {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
        Self { agent, server: cluster.server(), token: format!("Bearer {}", cluster.token()) }
    }

    /// The answer's body, or why there is none.
    pub(crate) fn get(&self, path: &str) -> Result<Vec<u8>, String> {
        let asked = self.agent.get(format!("{}{path}", self.server)).header("authorization", &self.token).call();
        let mut answer = asked.map_err(|error| error.to_string())?;
        answer.body_mut().with_config().limit(1 << 30).read_to_vec().map_err(|error| error.to_string())
    }

    pub(crate) fn json(&self, path: &str) -> Result<Value, String> {
        serde_json::from_slice(&self.get(path)?).map_err(|error| error.to_string())
    }

    /// All of a list, page by page.
    pub(crate) fn all(&self, path: &str) -> Result<Vec<Value>, String> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let after = all.last().and_then(|item| item["metadata"]["name"].as_str());
            let after = after.map(|name| format!("&after={name}")).unwrap_or_default();
            let page = self.json(&format!("{path}limit=2000{after}"))?;
            let items = page["items"].as_array().ok_or_else(|| page.to_string())?;
            if items.is_empty() {
                return Ok(all);
            }
            all.extend(items.iter().cloned());
        }
    }

    pub(crate) fn post(&self, path: &str, header: (&str, &str), body: &Value) -> Result<Value, String> {
        let asked = self.agent.post(format!("{}{path}", self.server)).header("authorization", &self.token);
        let asked = asked.header("content-type", "application/json").header(header.0, header.1).send(body.to_string());
        let text =
            asked.and_then(|mut answer| answer.body_mut().read_to_string()).map_err(|error| error.to_string())?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// Runs that were started by hand.
    pub runs: Vec<String>,
    /// Deliveries, and the runs that each answer named.
    pub deliveries: BTreeMap<String, Vec<String>>,
    /// What was seen of the logs of runs.
    pub logs: BTreeMap<String, Vec<u8>>,
}

/// It goes on until it is asked what it knows.
#[derive(Debug)]
pub(crate) struct Client {
    known: Arc<Mutex<Acknowledged>>,
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Client {
    pub(crate) fn start(api: Api, seed: u64) -> Self {
        let (known, over) = (Arc::<Mutex<Acknowledged>>::default(), Arc::<AtomicBool>::default());
        let (mine, until) = (Arc::clone(&known), Arc::clone(&over));
        let thread = thread::spawn(move || {
            let mut random = Random::new(seed);
            let mut unsent: Option<String> = None;
            for count in 0_u64.. {
                if until.load(Ordering::Relaxed) {
                    break;
                }
                thread::park_timeout(Duration::from_millis(random.between(100, 700)));
                // The same key for two calls: they are one run.
                let key = format!("{seed}-{}", count / 2);
                let wanted = json!({"workflow": "chaos", "pipeline": "hand"});
                if let Ok(run) = api.post("/api/v1/runs", ("Idempotency-Key", &key), &wanted) {
                    mine.lock().unwrap().runs.push(run["metadata"]["name"].as_str().unwrap().into());
                }
                // What was not taken is sent again, and what was taken now and then, too.
                let id = unsent.take().unwrap_or_else(|| format!("{seed}-{count}"));
                for _ in 0..random.between(1, 2) {
                    match api.post("/hooks/chaos/triggers/request", ("X-Delivery-Id", &id), &json!({})) {
                        Ok(answer) => {
                            let run = answer["run"].as_str().unwrap_or_else(|| panic!("{answer:#}")).to_owned();
                            mine.lock().unwrap().deliveries.entry(id.clone()).or_default().push(run);
                        }
                        Err(_) => unsent = Some(id.clone()),
                    }
                }
                if random.chance(500)
                    && let Ok(runs) = api.json("/api/v1/runs?workflow=chaos&pipeline=lines&limit=2")
                    && let Some(run) = runs["items"].as_array().and_then(|runs| runs.last())
                {
                    let name = run["metadata"]["name"].as_str().unwrap();
                    if let Ok(log) = api.get(&format!("/api/v1/runs/{name}/logs")) {
                        mine.lock().unwrap().logs.insert(name.to_owned(), log);
                    }
                }
            }
        });
        Self { known, over, thread }
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Acknowledged {
        self.over.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().expect("the client does not panic");
        std::mem::take(&mut *self.known.lock().unwrap())
    }
}
