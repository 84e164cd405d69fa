//! An order, from its begin to the certificate (RFC 8555 section 7.1), in two parts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use preforkd_worker::acme::{Challenges, ExternalAccount, Failure, Kind, Outcome, Task};

use super::client::{Client, RetryAfter};
use super::made;
use super::problem::{has_no_account, judge, line};

/// How often the authority is asked whether it has validated, and for how long.
const VALIDATION: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(60));

/// The account as it is known.
pub type Known = Arc<Mutex<Option<String>>>;

/// A failure: what it is, and why.
type Failed = (Failure, String);

/// Does a part of an exchange. The account is noted as soon as there is one, as the next part needs it whatever comes of this one.
pub async fn run(task: &Task, known: &Known) -> Outcome {
    let retry_after = RetryAfter::default();
    match attempt(task, known, &retry_after).await {
        Ok(outcome) => outcome,
        Err((failure, why)) => Outcome::Failed {
            why,
            failure,
            retry_after: *retry_after.lock().unwrap_or_else(PoisonError::into_inner),
        },
    }
}

async fn attempt(task: &Task, known: &Known, retry_after: &RetryAfter) -> Result<Outcome, Failed> {
    let account = account(task, known, retry_after).await?;
    let failed = |error: Error| judge(&error);
    let mut order = match &task.order {
        Some(url) => account.order(url.clone()).await.map_err(failed)?,
        None => {
            let hosts: Vec<_> = task.hosts.iter().cloned().map(Identifier::Dns).collect();
            account
                .new_order(&NewOrder::new(&hosts))
                .await
                .map_err(failed)?
        }
    };
    let challenges = challenges(&mut order, &task.kinds, task.order.is_some()).await?;
    if task.order.is_none() && !challenges.is_empty() {
        return Ok(Outcome::Begun {
            order: order.url().to_owned(),
            challenges,
        });
    }
    finish(&mut order).await.map(Outcome::Issued)
}

/// The account of the task, or a new one where there is none or the authority has forgotten it.
async fn account(task: &Task, known: &Known, retry_after: &RetryAfter) -> Result<Account, Failed> {
    let builder = || {
        let client = Client::new(task.ca.as_deref(), retry_after.clone());
        let client = client.map_err(|why| (Failure::Refused, why))?;
        Ok(Account::builder_with_http(Box::new(client)))
    };
    let contact = task.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.as_deref().into_iter().collect();
    if let Some(json) = &task.account
        && let Ok(credentials) = serde_json::from_str::<AccountCredentials>(json)
    {
        let restored = builder()?.from_credentials(credentials).await;
        let account = restored.map_err(|error| judge(&error))?;
        // Only at the begin: it costs a request, and tells whether the account is known.
        if task.order.is_some() {
            return Ok(account);
        }
        match account.update_contacts(&contact).await {
            Ok(()) => return Ok(account),
            Err(error) if !has_no_account(&error) => return Err(judge(&error)),
            Err(_) => {}
        }
    }
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let eab = task.eab.as_ref().map(external).transpose()?;
    let directory = task.directory.clone();
    let made = builder()?.create(&new, directory, eab.as_ref()).await;
    let (account, credentials) = made.map_err(|error| match judge(&error) {
        // No host was looked at yet: it is the external account that is not right.
        (Failure::Unproven, why) => (Failure::Refused, why),
        other => other,
    })?;
    let text = serde_json::to_string(&credentials).map_err(|error| judge(&error.into()))?;
    *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    Ok(account)
}

/// The key by which a new account is bound to an external one.
fn external(account: &ExternalAccount) -> Result<ExternalAccountKey, Failed> {
    let key = Base64UrlUnpadded::decode_vec(&account.hmac_key).map(zeroize::Zeroizing::new);
    let key = key.map_err(|error| (Failure::Refused, format!("the key of `eab`: {error}")))?;
    Ok(ExternalAccountKey::new(account.key_id.clone(), &key))
}

/// The challenges of all hosts that are not proven yet. With `answered`, the authority is told to look.
async fn challenges(
    order: &mut Order,
    kinds: &[Kind],
    answered: bool,
) -> Result<Challenges, Failed> {
    let failed = |error: Error| judge(&error);
    let mut found = Challenges::default();
    let mut all = order.authorizations();
    while let Some(authorization) = all.next().await {
        let mut authorization = authorization.map_err(failed)?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let offered: Vec<_> = authorization
            .challenges
            .iter()
            .map(|one| one.r#type.clone())
            .collect();
        let host = authorization.identifier().to_string();
        let kind = kinds.iter().find(|kind| offered.contains(&name(**kind)));
        let Some(&kind) = kind else {
            let why = format!("the authority offers no challenge for {host} that can be answered");
            return Err((Failure::Refused, line(&why)));
        };
        let Some(mut challenge) = authorization.challenge(name(kind)) else {
            continue;
        };
        if answered {
            challenge.set_ready().await.map_err(failed)?;
            continue;
        }
        let answer = challenge.key_authorization();
        match kind {
            Kind::Http => {
                let token = challenge.token.clone();
                found.http.insert(token, answer.as_str().to_owned());
            }
            Kind::TlsAlpn => {
                let made = made::of_challenge(&host, &answer);
                let made = made.map_err(|error| (Failure::Refused, line(&error.to_string())))?;
                found.tls.insert(host, made);
            }
        }
    }
    Ok(found)
}

fn name(kind: Kind) -> ChallengeType {
    match kind {
        Kind::Http => ChallengeType::Http01,
        Kind::TlsAlpn => ChallengeType::TlsAlpn01,
    }
}

/// Waits for the validation, and has the certificate issued. Returns its key, itself and its chain.
async fn finish(order: &mut Order) -> Result<String, Failed> {
    let failed = |error: Error| judge(&error);
    let status = match order.state().status {
        OrderStatus::Ready => OrderStatus::Ready,
        _ => match order.poll_ready(&VALIDATION).await {
            Ok(status) => status,
            // The authority says when to come back, and means that nothing was decided.
            Err(error @ Error::Timeout(Some(_))) => return Err(failed(error)),
            Err(error) => return Err(unproven(order).await.unwrap_or_else(|| failed(error))),
        },
    };
    if status != OrderStatus::Ready {
        let unknown = || (Failure::Unproven, "the order has become invalid".to_owned());
        return Err(unproven(order).await.unwrap_or_else(unknown));
    }
    let key = order.finalize().await.map_err(failed)?;
    let chain = order.poll_certificate(&VALIDATION).await.map_err(failed)?;
    Ok(key + &chain)
}

/// What the authority says about a host that was not proven.
async fn unproven(order: &mut Order) -> Option<Failed> {
    let mut all = order.authorizations();
    while let Some(authorization) = all.next().await {
        let mut authorization = authorization.ok()?;
        authorization.refresh().await.ok()?;
        let host = authorization.identifier().to_string();
        let error = authorization
            .challenges
            .iter()
            .find_map(|one| one.error.clone());
        if let Some(error) = error {
            let (failure, why) = judge(&Error::Api(error));
            return Some((failure, line(&format!("{host}: {why}"))));
        }
    }
    None
}
