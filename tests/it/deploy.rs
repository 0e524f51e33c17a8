//! What stands in `deploy/`: that a real API server takes it, that its rights suffice, and that it
//! says the same as the binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::kube::Kube;
use crate::support::wait::eventually;
use crate::support::{helm_path, need};

mod monitoring;
mod rights;

const NAMESPACE: &str = "breakglass-system";

/// Values that change what is rendered.
const VALUES: [&[&str]; 5] = [
    &[],
    &["auth.mode=none", "networkPolicy.enabled=false"],
    &["auth.mode=token", "auth.tokenSecret=tokens", "webhook.certSecret=cert", "replicas=3"],
    &["serviceMonitor.enabled=true", "prometheusRule.enabled=true", "dashboard.enabled=true"],
    &[
        "secretNamespaces={mail,breakglass-system}",
        "storage.storageClass=fast",
        "image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "imagePullSecrets[0].name=registry",
        "networkPolicy.from[0].podSelector.matchLabels.app=breakglass",
        "networkPolicy.webhookFrom[0].ipBlock.cidr=10.0.0.0/28",
        "tolerations[0].operator=Exists",
        "nodeSelector.disk=local",
        "podAnnotations.team=identity",
        "extraArgs={--max-age=12h}",
    ],
];

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).expect("a file of deploy")
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().expect("start it");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// What the chart renders for a release of its own name.
fn render(values: &[&str]) -> Result<String, String> {
    render_release("breakglass-mailer", values)
}

fn render_release(release: &str, values: &[&str]) -> Result<String, String> {
    let mut helm = Command::new("helm");
    helm.env("PATH", helm_path()).args(["template", release, "--namespace", NAMESPACE]);
    helm.arg(deploy("helm/breakglass-mailer"));
    run(helm.args(values.iter().flat_map(|value| ["--set", value])))
}

/// The objects that the API server makes of manifests, without keeping them. Warnings are errors:
/// one of them is that the pods of a workload would not be let in.
fn admit(kube: &Kube, manifests: &str) -> Vec<Value> {
    let args = ["apply", "--dry-run=server", "--warnings-as-errors", "-o", "json", "-f", "-"];
    let taken = kube.kubectl_with(&args, manifests).unwrap_or_else(|error| panic!("{error}"));
    let list: Value = serde_json::from_str(&taken).expect("JSON");
    list["items"].as_array().cloned().unwrap_or_else(|| vec![list])
}

/// A Pod as a workload's controller would make it.
fn pod(workload: &Value) -> Value {
    let mut pod = workload["spec"]["template"].clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = "of-the-template".into();
    pod["metadata"]["namespace"] = workload["metadata"]["namespace"].clone();
    let claims = workload["spec"]["volumeClaimTemplates"].as_array().cloned().unwrap_or_default();
    let mut volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    volumes.extend(claims.iter().map(|claim| {
        let name = claim["metadata"]["name"].clone();
        json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
    }));
    pod["spec"]["volumes"] = volumes.into();
    pod
}

/// The command line of a StatefulSet.
fn args(set: &Value) -> Vec<String> {
    let args = &set["spec"]["template"]["spec"]["containers"][0]["args"];
    serde_json::from_value(args.clone()).expect("texts")
}

/// The flags that the chart gives to the server, but for those that a test gives by itself.
fn flags(set: &Value) -> Vec<String> {
    let args = args(set);
    assert_eq!(args[..2], ["serve", "--kubernetes"]);
    let of_the_test = ["--data-dir", "--log-format"];
    let is_ours = |arg: &&String| !of_the_test.iter().any(|flag| arg.starts_with(flag));
    args[2..].iter().filter(is_ours).cloned().collect()
}

/// Namespaces that let in only restricted Pods, and our definitions.
async fn cluster() -> Kube {
    let kube = Kube::start().await;
    kube.install_crds(&["mailproviders", "breakglassescalations", "clusterconfigs"]).await;
    let namespaces = read("kustomize/base/namespace.yaml");
    kube.apply(&namespaces).expect("applied");
    kube.apply(&namespaces.replace(NAMESPACE, "mail")).expect("applied");
    kube
}

/// The kinds of the Prometheus operator, of which nothing but the name is known here.
async fn install_operator(kube: &Kube) {
    for (kind, plural) in
        [("ServiceMonitor", "servicemonitors"), ("PrometheusRule", "prometheusrules")]
    {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let version = json!({
            "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
        });
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
            "spec": {
                "group": "monitoring.coreos.com",
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural},
                "versions": [version],
            },
        });
        kube.apply(&definition.to_string()).expect("applied");
        eventually("it is served", async || kube.kubectl(&["get", plural]).ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_all_that_is_rendered_and_lets_its_pods_in_where_only_restricted_may()
{
    if !need("kube") || !need("helm") {
        return;
    }
    let kube = cluster().await;
    install_operator(&kube).await;
    let mut sources: Vec<_> =
        VALUES.iter().map(|values| render(values).expect("it renders")).collect();
    for folder in ["kustomize/overlays/dev", "kustomize/overlays/production", "crds/optional"] {
        let folder = deploy(folder);
        let path = folder.to_str().expect("UTF-8");
        sources.push(kube.kubectl(&["kustomize", path]).expect("it renders"));
    }
    let mut pods_count = 0;
    for source in &sources {
        for object in admit(&kube, source) {
            if object["spec"]["template"].is_object() {
                let grace =
                    object["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_i64();
                assert!(Some(25) < grace, "longer than --shutdown-grace: {grace:?}");
                admit(&kube, &pod(&object).to_string());
                if object["kind"] == "StatefulSet" {
                    let mut serve = Command::new(env!("CARGO_BIN_EXE_breakglass-mailer"));
                    run(serve.args(args(&object)).arg("--help")).expect("it knows its flags");
                }
                pods_count += 1;
            }
        }
    }
    assert_eq!(pods_count, VALUES.len() + 3, "one each, and the mail server of dev");

    let careless = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": NAMESPACE},
        "spec": {"containers": [{"name": "x", "image": "x"}]},
    });
    let refused = kube.apply(&careless.to_string()).expect_err("the namespace is restricted");
    assert!(refused.contains("violates PodSecurity"), "{refused}");
    for sample in fs::read_dir(deploy("samples")).expect("the samples") {
        let path = sample.expect("a sample").path();
        let taken = admit(&kube, &fs::read_to_string(&path).expect("text"));
        assert!(!taken.is_empty(), "{}", path.display());
    }
}

#[test]
fn a_value_that_is_misspelt_or_makes_no_sense_is_refused_by_name() {
    if !need("helm") {
        return;
    }
    for (value, named) in [
        ("replica=2", "'replica' not allowed"),
        ("webhook.enable=true", "'enable' not allowed"),
        ("replicas=0", "/replicas"),
        ("auth.mode=basic", "/auth/mode"),
        ("auth.mode=token", "/auth/tokenSecret"),
        ("secretNamespaces={No}", "/secretNamespaces/0"),
        ("networkPolicy.smtpPorts={smtp}", "/networkPolicy/smtpPorts/0"),
        ("networkPolicy.webhookFrom={10.0.0.1}", "/networkPolicy/webhookFrom/0"),
        ("image.digest=latest", "/image/digest"),
    ] {
        let refused = render(&[value]).expect_err(value);
        assert!(refused.contains(named), "{value}: {refused}");
    }
}

#[test]
fn each_port_lets_in_whom_its_own_value_names() {
    if !need("helm") {
        return;
    }
    for (value, port) in [("from", "http"), ("webhookFrom", "webhook")] {
        let peer = format!("networkPolicy.{value}[0].ipBlock.cidr=10.0.0.0/28");
        let rendered = render(&[&peer]).expect("it renders");
        let rule = format!(
            "- ports:
        - {{port: {port}, protocol: TCP}}
      from:
        - ipBlock:
            cidr: 10.0.0.0/28
"
        );
        assert!(rendered.contains(&rule), "{value}:\n{rendered}");
        assert_eq!(rendered.matches("10.0.0.0/28").count(), 1, "{value} is for one port");
    }
}

#[test]
fn the_base_of_kustomize_is_what_the_chart_renders() {
    if !need("helm") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut render = Command::new(deploy("kustomize/render"));
    run(render.env("PATH", helm_path()).arg(folder.path())).expect("it renders");
    for file in ["base/mailer.yaml", "monitoring/monitoring.yaml"] {
        let rendered = fs::read_to_string(folder.path().join(file)).expect("it was written");
        let same = rendered == read(&format!("kustomize/{file}"));
        assert!(same, "deploy/kustomize/{file} is old: run deploy/kustomize/render");
    }
}

#[test]
fn the_definitions_are_those_that_the_binary_prints() {
    for (file, name) in [
        ("crds/mailproviders.yaml", "mailproviders"),
        ("crds/optional/breakglassescalations.yaml", "breakglassescalations"),
        ("crds/optional/clusterconfigs.yaml", "clusterconfigs"),
        ("helm/breakglass-mailer/crds/mailproviders.yaml", "mailproviders"),
    ] {
        let mut crds = Command::new(env!("CARGO_BIN_EXE_breakglass-mailer"));
        let printed = run(crds.args(["crds", name])).expect("they are printed");
        assert!(read(file) == printed, "deploy/{file} is not what `crds {name}` prints");
    }
}
