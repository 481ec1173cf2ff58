// What a developer writes in an afternoon instead of a projector: reads the outbox in order, 500 events at a time;
// claims, applies and deletes them. No aggregates, no failures, one owner.
//
//   node by_hand.js DATABASE     empties a full outbox, and prints the number of events
//
// The same stores, events and tables as floor.c.
const { MongoClient } = require("mongodb");
const mysql = require("mysql2/promise");

const BATCH = 500;
const TABLES = [
  `DROP TABLE IF EXISTS account, applied`,
  `CREATE TABLE account (id VARCHAR(64) PRIMARY KEY, user_id VARCHAR(64), name VARCHAR(100), balance BIGINT,
     currency CHAR(3), version BIGINT, occurred_at DATETIME(3))`,
  `CREATE TABLE applied (event_id BINARY(16) PRIMARY KEY, applied_at DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3))`,
];
const UPSERT = `INSERT INTO account VALUES ? ON DUPLICATE KEY UPDATE user_id = VALUES(user_id), name = VALUES(name),
  balance = VALUES(balance), currency = VALUES(currency), version = VALUES(version), occurred_at = VALUES(occurred_at)`;

async function main(database) {
  const env = process.env;
  const client = await MongoClient.connect(env.MONGO_URI);
  const outbox = client.db(database).collection("outbox", { writeConcern: { w: 1 } });
  const sql = await mysql.createConnection({
    host: env.MYSQL_HOST, port: Number(env.MYSQL_PORT), user: env.MYSQL_USER, password: env.MYSQL_PASSWORD,
    database, timezone: "Z",
  });
  for (const statement of TABLES) await sql.query(statement);

  const apply = async (events) => {
    const chosen = { _id: { $in: events.map((event) => event._id) } };
    await outbox.updateMany(chosen, { $set: { status: "in_progress", claimed_by: "by hand", claimed_at: new Date() } });
    await sql.beginTransaction();
    await sql.query("INSERT INTO applied (event_id) VALUES ?", [events.map((event) => [event._id.buffer])]);
    await sql.query(UPSERT, [events.map(({ aggregate_id, payload, version, occurred_at }) =>
      [aggregate_id, payload.user_id, payload.name, payload.balance, payload.currency, version, occurred_at])]);
    await sql.commit();
    await outbox.deleteMany(chosen);
  };

  let count = 0, batch = [];
  for await (const event of outbox.find({}).sort({ _id: 1 }).batchSize(1000)) {
    batch.push(event);
    if (batch.length === BATCH) {
      await apply(batch);
      batch = [];
    }
    count++;
  }
  if (batch.length > 0) await apply(batch);
  console.log(count);
  await sql.end();
  await client.close();
}

main(process.argv[2]).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
