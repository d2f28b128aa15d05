BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
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
);
INSERT INTO "attempts" VALUES(1,2,1,101,1790000001.5,'boot-a',1790000021.0,1790000050.0,0,30,4,NULL,NULL,'fresh',NULL,NULL,9,'died','killed','ended by SIGKILL',1,0,'loading
RuntimeError: [METAL] Insufficient Memory');
INSERT INTO "attempts" VALUES(2,2,2,102,1790000062.5,'boot-a',1790000061.0,NULL,20,30,3,NULL,'step-0000020','exact','{"equal": true, "measured": 2.0, "recorded": 2.0}',NULL,NULL,NULL,NULL,NULL,0,2,NULL);
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
);
INSERT INTO "checkpoints" VALUES(1,2,1,20,1790000034.0,0,'checkpoints/step-0000020',1000,0.25);
CREATE TABLE facts (
	job_id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	attempt INTEGER NOT NULL, 
	time DOUBLE PRECISION NOT NULL, 
	value JSON NOT NULL, 
	PRIMARY KEY (job_id, name), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "facts" VALUES(3,'battery.before',1,1790000100.0,'{"percent": 80.0}');
CREATE TABLE fits (
	"key" VARCHAR NOT NULL, 
	fits BOOLEAN NOT NULL, 
	peak_bytes INTEGER, 
	job_id INTEGER NOT NULL, 
	seen_at DOUBLE PRECISION NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "fits" VALUES('["m","d","lora",16,8,"adam",4,2048,false]',0,9663676416,2,1790000055.0);
INSERT INTO "fits" VALUES('["m","d","lora",16,8,"adam",2,2048,true]',1,NULL,2,1790000070.0);
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
);
INSERT INTO "incidents" VALUES(1,2,1,1790000051.0,'restart','resumes','{"deaths_in_a_row": 1}');
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
, cleaned_at DOUBLE PRECISION);
INSERT INTO "jobs" VALUES(1,'qwen-ml-expert','paused','stopped_by_user','paused with the worker',0,100,'/home/u/lq/jobs/1-qwen-ml-expert','{"model":"m"}',1790000000.0,1790000071.0,NULL,NULL,NULL,'at_worker_start',NULL,NULL,NULL,NULL,0,0,0,NULL,0,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(2,'second','running',NULL,NULL,5,100,'/home/u/lq/jobs/2-second','{"model":"m"}',1790000005.0,1790000020.0,NULL,NULL,NULL,NULL,100,1790000000.25,'boot-a',1790000060.0,2,0,1500,1790000033.0,30,0.5,3.0,5.0,NULL);
INSERT INTO "jobs" VALUES(3,'third','succeeded','completed','trained',0,100,'/home/u/lq/jobs/3-third','{"model":"m"}',1790000000.0,1790000074.0,1790000075.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,NULL,0,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(4,'fourth','queued',NULL,NULL,-1,100,'/home/u/lq/jobs/4-fourth','{"model":"m"}',1789999999.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,NULL,0,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(5,'fifth','cancelled','stopped_by_user','cancelled by the user',0,100,'/home/u/lq/jobs/5-fifth','{"model":"m"}',1790000000.0,NULL,1790000010.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,NULL,0,NULL,NULL,NULL,1790000400.0);
CREATE TABLE legs (
	id INTEGER NOT NULL, 
	job_id INTEGER NOT NULL, 
	decided_at DOUBLE PRECISION NOT NULL, 
	content JSON NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "legs" VALUES(1,2,1790000050.0,'{"first_example": 80, "batch_size": 4, "grad_accumulation_steps": 2, "grad_checkpoint": true, "max_seq_length": 2048, "learning_rate_factor": 1.0, "salt": 0, "segment": null, "because": "out_of_memory: gradient checkpointing on"}');
INSERT INTO "legs" VALUES(2,2,1790000060.0,'{"first_example": 80, "batch_size": 2, "grad_accumulation_steps": 4, "grad_checkpoint": true, "max_seq_length": 2048, "learning_rate_factor": 1.0, "salt": 0, "segment": null, "because": "out_of_memory: batch 4 -> 2, accumulation 2 -> 4; the effective batch stays 8"}');
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
);
INSERT INTO "outbox" VALUES(1,3,'finished','3-finished','third finished','B',NULL,'["phone"]',1790000075.0,1790000200.0,NULL,'[{"service": "json 1", "delivered": false, "tries": 2, "last_result": "timed out"}]',NULL);
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
);
INSERT INTO "progress_points" VALUES(1,2,1,10,1790000033.0,0,2.0,NULL,4.0,120.0,NULL,0.5,1,2,3,4,NULL,NULL,NULL);
INSERT INTO "progress_points" VALUES(2,2,1,20,1790000033.0,0,1.0,NULL,4.0,120.0,NULL,0.5,1,2,3,4,NULL,NULL,NULL);
INSERT INTO "progress_points" VALUES(3,2,1,30,1790000033.0,1,'nan',1.0e-05,4.0,120.0,900,0.5,1,2,3,4,NULL,NULL,NULL);
INSERT INTO "progress_points" VALUES(4,2,2,30,1790000033.0,0,0.5,NULL,5.0,NULL,NULL,NULL,1,2,3,4,1,7,9);
CREATE TABLE queue (
	id INTEGER NOT NULL, 
	paused_at DOUBLE PRECISION, 
	because VARCHAR, 
	PRIMARY KEY (id)
);
INSERT INTO "queue" VALUES(1,1790000080.0,'jobs 1 and 2 both died of crashed within ten minutes, before they trained: exit code 1');
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
);
INSERT INTO "validations" VALUES(1,2,1,0,1790000032.0,0,'validation',3.0,0.25,2,1.5,'[2.5, 3.5]');
CREATE INDEX ix_jobs_status ON jobs (status, priority, id);
CREATE UNIQUE INDEX ix_attempts_living ON attempts (job_id) WHERE ended_at IS NULL;
CREATE INDEX ix_progress_points_job_id ON progress_points (job_id, iteration);
CREATE INDEX ix_validations_job_id ON validations (job_id, iteration);
CREATE INDEX ix_checkpoints_job_id ON checkpoints (job_id, iteration);
CREATE INDEX ix_incidents_job_id ON incidents (job_id);
CREATE INDEX ix_outbox_due ON outbox (settled, next_try_at);
CREATE INDEX ix_legs_job_id ON legs (job_id);
CREATE INDEX ix_outbox_kind ON outbox (job_id, event);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',5);
INSERT INTO "sqlite_sequence" VALUES('attempts',2);
COMMIT;
