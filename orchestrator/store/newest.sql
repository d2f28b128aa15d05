CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
)

CREATE TABLE jobs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	reason VARCHAR, 
	detail VARCHAR, 
	priority INTEGER NOT NULL, 
	iters INTEGER NOT NULL, 
	job_dir VARCHAR NOT NULL, 
	spec_json VARCHAR NOT NULL, 
	submitted_at DOUBLE PRECISION NOT NULL, 
	started_at DOUBLE PRECISION, 
	ended_at DOUBLE PRECISION, 
	not_before DOUBLE PRECISION, 
	wish VARCHAR, 
	resumes VARCHAR, 
	owner_pid INTEGER, 
	owner_create_time DOUBLE PRECISION, 
	owner_boot_id VARCHAR, 
	heartbeat_at DOUBLE PRECISION, 
	attempts INTEGER DEFAULT 0 NOT NULL, 
	deaths_from INTEGER DEFAULT 0 NOT NULL, 
	events_offset INTEGER DEFAULT 0 NOT NULL, 
	last_event_at DOUBLE PRECISION, 
	iteration INTEGER DEFAULT 0 NOT NULL, 
	train_loss DOUBLE PRECISION, 
	val_loss DOUBLE PRECISION, 
	it_s DOUBLE PRECISION
, cleaned_at DOUBLE PRECISION, group_name VARCHAR, place DOUBLE PRECISION, dropped_sha256 VARCHAR, thinned_from INTEGER)

CREATE INDEX ix_jobs_status ON jobs (status, priority, id)

CREATE TABLE attempts (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	child_pid INTEGER, 
	child_create_time DOUBLE PRECISION, 
	child_boot_id VARCHAR, 
	started_at DOUBLE PRECISION NOT NULL, 
	ended_at DOUBLE PRECISION, 
	first_iteration INTEGER, 
	last_iteration INTEGER, 
	last_seq INTEGER DEFAULT 0 NOT NULL, 
	phase VARCHAR, 
	resumed_from VARCHAR, 
	quality VARCHAR, 
	self_test JSON, 
	exit_code INTEGER, 
	signal INTEGER, 
	outcome VARCHAR, 
	reason VARCHAR, 
	detail VARCHAR, 
	settled BOOLEAN DEFAULT 0 NOT NULL, leg INTEGER, stderr_tail VARCHAR, 
	CONSTRAINT uq_attempts_job_id_number UNIQUE (job_id, number), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
)

CREATE UNIQUE INDEX ix_attempts_living ON attempts (job_id) WHERE ended_at IS NULL

CREATE TABLE progress_points (
	id INTEGER NOT NULL, 
	job_id INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	iteration INTEGER NOT NULL, 
	time DOUBLE PRECISION NOT NULL, 
	superseded BOOLEAN DEFAULT 0 NOT NULL, 
	train_loss DOUBLE PRECISION NOT NULL, 
	learning_rate DOUBLE PRECISION, 
	it_s DOUBLE PRECISION, 
	tok_s DOUBLE PRECISION, 
	tokens INTEGER, 
	grad_norm DOUBLE PRECISION, 
	active_bytes INTEGER, 
	cache_bytes INTEGER, 
	peak_bytes INTEGER, 
	footprint_bytes INTEGER, skipped INTEGER, swap_bytes INTEGER, limit_bytes INTEGER, 
	PRIMARY KEY (id), 
	FOREIGN KEY(job_id, attempt) REFERENCES attempts (job_id, number)
)

CREATE INDEX ix_progress_points_job_id ON progress_points (job_id, iteration)

CREATE TABLE validations (
	id INTEGER NOT NULL, 
	job_id INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	iteration INTEGER NOT NULL, 
	time DOUBLE PRECISION NOT NULL, 
	superseded BOOLEAN DEFAULT 0 NOT NULL, 
	kind VARCHAR NOT NULL, 
	loss DOUBLE PRECISION NOT NULL, 
	standard_error DOUBLE PRECISION, 
	examples INTEGER NOT NULL, 
	seconds DOUBLE PRECISION NOT NULL, 
	row_losses JSON, 
	PRIMARY KEY (id), 
	FOREIGN KEY(job_id, attempt) REFERENCES attempts (job_id, number)
)

CREATE INDEX ix_validations_job_id ON validations (job_id, iteration)

CREATE TABLE checkpoints (
	id INTEGER NOT NULL, 
	job_id INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	iteration INTEGER NOT NULL, 
	time DOUBLE PRECISION NOT NULL, 
	superseded BOOLEAN DEFAULT 0 NOT NULL, 
	path VARCHAR NOT NULL, 
	size_bytes INTEGER NOT NULL, 
	seconds DOUBLE PRECISION NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(job_id, attempt) REFERENCES attempts (job_id, number)
)

CREATE INDEX ix_checkpoints_job_id ON checkpoints (job_id, iteration)

CREATE TABLE incidents (
	id INTEGER NOT NULL, 
	job_id INTEGER NOT NULL, 
	attempt INTEGER, 
	time DOUBLE PRECISION NOT NULL, 
	code VARCHAR NOT NULL, 
	text VARCHAR NOT NULL, 
	evidence JSON NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
)

CREATE INDEX ix_incidents_job_id ON incidents (job_id)

CREATE TABLE outbox (
	id INTEGER NOT NULL, 
	job_id INTEGER, 
	event VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	title VARCHAR NOT NULL, 
	body VARCHAR NOT NULL, 
	attachment VARCHAR, 
	tags JSON, 
	created_at DOUBLE PRECISION NOT NULL, 
	next_try_at DOUBLE PRECISION, 
	settled VARCHAR, 
	services JSON NOT NULL, due_at DOUBLE PRECISION, 
	PRIMARY KEY (id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id), 
	UNIQUE ("key")
)

CREATE INDEX ix_outbox_due ON outbox (settled, next_try_at)

CREATE TABLE legs (
	id INTEGER NOT NULL, 
	job_id INTEGER NOT NULL, 
	decided_at DOUBLE PRECISION NOT NULL, 
	content JSON NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
)

CREATE INDEX ix_legs_job_id ON legs (job_id)

CREATE TABLE fits (
	"key" VARCHAR NOT NULL, 
	fits BOOLEAN NOT NULL, 
	peak_bytes INTEGER, 
	job_id INTEGER NOT NULL, 
	seen_at DOUBLE PRECISION NOT NULL, it_s DOUBLE PRECISION, start_s DOUBLE PRECISION, validation_s DOUBLE PRECISION, 
	PRIMARY KEY ("key")
)

CREATE TABLE queue (
	id INTEGER NOT NULL, 
	paused_at DOUBLE PRECISION, 
	because VARCHAR, 
	PRIMARY KEY (id)
)

CREATE INDEX ix_outbox_kind ON outbox (job_id, event)

CREATE TABLE facts (
	job_id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	attempt INTEGER NOT NULL, 
	time DOUBLE PRECISION NOT NULL, 
	value JSON NOT NULL, 
	PRIMARY KEY (job_id, name), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
)

CREATE TABLE dependencies (
	job_id INTEGER NOT NULL, 
	on_job_id INTEGER NOT NULL, 
	any_end BOOLEAN NOT NULL, 
	PRIMARY KEY (job_id, on_job_id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id), 
	FOREIGN KEY(on_job_id) REFERENCES jobs (id)
)

CREATE INDEX ix_jobs_group_name ON jobs (group_name)

CREATE INDEX ix_jobs_dropped_sha256 ON jobs (dropped_sha256)

CREATE INDEX ix_jobs_name ON jobs (name)

CREATE INDEX ix_jobs_ended_at ON jobs (ended_at)

CREATE INDEX ix_attempts_ended_at ON attempts (ended_at)

CREATE INDEX ix_outbox_event ON outbox (event)

INSERT INTO "alembic_version" VALUES('0004')

INSERT INTO "queue" VALUES(1,NULL,NULL)
