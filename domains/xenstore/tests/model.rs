//! Random requests of several domains against a model that is a plain map.
//!
//! Outside transactions every reply must be the model's. A transaction that commits must have seen what it would see if
//! it ran alone at the moment of its commit; one that is refused must have had a reason.

mod common;

use common::{Op, Reply, Server};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
struct ModelNode {
    value: String,
    owner: u16,
    others: char,
    listed: Option<(u16, char)>,
}

#[derive(Clone, Debug)]
struct Model(BTreeMap<String, ModelNode>);

#[derive(Clone, Debug)]
enum Action {
    Read(String),
    Directory(String),
    Write(String, u8),
    MakeDirectory(String),
    Remove(String),
    SetPermissions(String, char, Option<(u16, char)>),
}

impl Action {
    fn request(&self, client: u16) -> (Op, String) {
        match self {
            Action::Read(path) => (Op::Read, format!("{path}\0")),
            Action::Directory(path) => (Op::Directory, format!("{path}\0")),
            Action::Write(path, value) => (Op::Write, format!("{path}\0{value}")),
            Action::MakeDirectory(path) => (Op::MakeDirectory, format!("{path}\0")),
            Action::Remove(path) => (Op::Remove, format!("{path}\0")),
            Action::SetPermissions(path, others, listed) => {
                let listed = listed.map(|(domain, letter)| format!("{letter}{domain}\0")).unwrap_or_default();
                (Op::SetPerms, format!("{path}\0{others}{client}\0{listed}"))
            }
        }
    }
}

fn parent(path: &str) -> Option<String> {
    match path.rfind('/') {
        _ if path == "/" => None,
        Some(0) => Some("/".into()),
        Some(at) => Some(path[..at].into()),
        None => None,
    }
}

fn below(path: &str, above: &str) -> bool {
    above == "/" || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Model {
    fn access(&self, path: &str, client: u16) -> char {
        let node = &self.0[path];
        match node.listed {
            _ if client == 0 || client == node.owner => 'b',
            Some((domain, letter)) if domain == client => letter,
            _ => node.others,
        }
    }

    fn may(&self, path: &str, client: u16, wanted: char) -> bool {
        let access = self.access(path, client);
        access == 'b' || access == wanted
    }

    fn nearest_above(&self, path: &str) -> String {
        let mut at = parent(path).unwrap();
        while !self.0.contains_key(&at) {
            at = parent(&at).unwrap();
        }
        at
    }

    fn check(&self, path: &str, client: u16, wanted: char) -> Result<bool, String> {
        let exists = self.0.contains_key(path);
        let at = if exists { path.to_string() } else { self.nearest_above(path) };
        if self.may(&at, client, wanted) { Ok(exists) } else { Err("EACCES".into()) }
    }

    fn create(&mut self, path: &str, client: u16, value: &str) {
        let above = self.nearest_above(path);
        let mut inherited = self.0[&above].clone();
        if client != 0 {
            inherited.owner = client;
        }
        let mut at = path.to_string();
        while at != above {
            let value = if at == path { value.to_string() } else { String::new() };
            self.0.insert(at.clone(), ModelNode { value, ..inherited.clone() });
            at = parent(&at).unwrap();
        }
    }

    fn run(&mut self, client: u16, action: &Action) -> Reply {
        let ok = Ok(b"OK\0".to_vec());
        match action {
            Action::Read(path) => match self.check(path, client, 'r')? {
                true => Ok(self.0[path].value.clone().into_bytes()),
                false => Err("ENOENT".into()),
            },
            Action::Directory(path) => {
                if !self.check(path, client, 'r')? {
                    return Err("ENOENT".into());
                }
                let children = self.0.keys().filter(|one| parent(one).as_ref() == Some(path));
                let mut names: Vec<&str> = children.map(|one| one.rsplit('/').next().unwrap()).collect();
                names.sort_unstable();
                Ok(names.iter().flat_map(|name| format!("{name}\0").into_bytes()).collect())
            }
            Action::Write(path, value) => {
                match self.check(path, client, 'w')? {
                    true => self.0.get_mut(path).unwrap().value = value.to_string(),
                    false => self.create(path, client, &value.to_string()),
                }
                ok
            }
            Action::MakeDirectory(path) => {
                if !self.check(path, client, 'w')? {
                    self.create(path, client, "");
                }
                ok
            }
            Action::Remove(path) => {
                if path == "/" {
                    return Err("EINVAL".into());
                }
                if !self.check(path, client, 'w')? && !self.0.contains_key(&parent(path).unwrap()) {
                    return Err("ENOENT".into());
                }
                if client != 0 && self.0.iter().any(|(one, node)| below(one, path) && node.owner == 0) {
                    return Err("EACCES".into());
                }
                self.0.retain(|one, _| !below(one, path));
                ok
            }
            Action::SetPermissions(path, others, listed) => {
                if !self.check(path, client, 'w')? {
                    return Err("ENOENT".into());
                }
                let node = self.0.get_mut(path).unwrap();
                if client != 0 && node.owner != client {
                    return Err("EACCES".into());
                }
                (node.owner, node.others, node.listed) = (client, *others, *listed);
                ok
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Alone(u16, Action),
    Start(u16),
    Inside(usize, Action),
    End(usize, bool),
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => Just("/".to_string()),
        12 => proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("ab")], 1..4)
            .prop_map(|parts| format!("/{}", parts.join("/"))),
    ]
}

fn letter() -> impl Strategy<Value = char> {
    prop_oneof![Just('n'), Just('r'), Just('w'), Just('b')]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        1 => path().prop_map(Action::Read),
        1 => path().prop_map(Action::Directory),
        3 => (path(), any::<u8>()).prop_map(|(path, value)| Action::Write(path, value)),
        1 => path().prop_map(Action::MakeDirectory),
        1 => path().prop_map(Action::Remove),
        1 => (path(), letter(), proptest::option::of((0u16..3, letter())))
            .prop_map(|(path, others, listed)| Action::SetPermissions(path, others, listed)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u16..3, action()).prop_map(|(client, action)| Step::Alone(client, action)),
        1 => (0u16..3).prop_map(Step::Start),
        5 => (0usize..4, action()).prop_map(|(which, action)| Step::Inside(which, action)),
        2 => (0usize..4, any::<bool>()).prop_map(|(which, commit)| Step::End(which, commit)),
    ]
}

struct Open {
    client: u16,
    id: u32,
    commits_before: usize,
    log: Vec<(Action, Reply)>,
}

/// The server's tree in the model's terms.
fn dump(server: &mut Server) -> Vec<(String, String, String)> {
    let all: Vec<String> = server.engine.store().iter().map(|(path, _)| path.to_string()).collect();
    all.into_iter()
        .map(|path| {
            let value = server.ok(0, Op::Read, &format!("{path}\0"));
            let list = server.ok(0, Op::GetPerms, &format!("{path}\0"));
            (path, value, list)
        })
        .collect()
}

fn model_dump(model: &Model) -> Vec<(String, String, String)> {
    let list = |node: &ModelNode| {
        let listed = node.listed.map(|(domain, letter)| format!("{letter}{domain}\0")).unwrap_or_default();
        format!("{}{}\0{listed}", node.others, node.owner)
    };
    model.0.iter().map(|(path, node)| (path.clone(), node.value.clone(), list(node))).collect()
}

fn run(steps: Vec<Step>) {
    let mut server = Server::default();
    for domain in 0..3 {
        server.engine.connect(xenstore::domid::DomId(domain), Default::default());
    }
    let root = ModelNode { value: String::new(), owner: 0, others: 'n', listed: None };
    let mut model = Model([("/".to_string(), root)].into());
    let mut commits = 0;
    let mut open: Vec<Open> = Vec::new();
    for step in steps {
        match step {
            Step::Alone(client, action) => {
                let (op, payload) = action.request(client);
                let before = model.0.clone();
                let expected = model.run(client, &action);
                assert_eq!(server.call(client, op, &payload), expected, "domain {client}: {action:?}");
                commits += usize::from(expected.is_ok() && !matches!(action, Action::Read(_) | Action::Directory(_)));
                assert!(expected.is_ok() || before == model.0, "the model itself is atomic");
            }
            Step::Start(client) if open.len() < 4 => {
                let id = server.start(client);
                open.push(Open { client, id, commits_before: commits, log: Vec::new() });
            }
            Step::Inside(which, action) => {
                let Some(transaction) = open.get_mut(which) else {
                    continue;
                };
                let (op, payload) = action.request(transaction.client);
                let reply = server.call_in(transaction.client, transaction.id, op, payload.as_bytes());
                transaction.log.push((action, reply));
            }
            Step::End(which, commit) if which < open.len() => {
                let transaction = open.remove(which);
                let reply = server.end(transaction.client, transaction.id, if commit { "T" } else { "F" });
                if !commit {
                    assert!(reply.is_ok());
                } else if reply.is_ok() {
                    for (action, seen) in &transaction.log {
                        assert_eq!(model.run(transaction.client, action), *seen, "as if alone: {action:?}");
                    }
                    commits += 1;
                } else {
                    assert_eq!(reply, Err("EAGAIN".into()));
                    assert!(commits > transaction.commits_before, "refused though nothing else happened");
                }
            }
            Step::Start(_) | Step::End(..) => {}
        }
        server.check_invariants();
    }
    assert_eq!(dump(&mut server), model_dump(&model));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn s5_the_store_behaves_like_a_map(steps in proptest::collection::vec(step(), 1..80)) {
        run(steps);
    }
}
