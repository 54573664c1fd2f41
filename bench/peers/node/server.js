// A peer: the two measured routes as a Node service of fastify and pg, written
// as such a service usually is: one process, a pool of connections, a named
// (so prepared) statement, the framework's own serialisation.  Logging is off,
// as it is for every server in the comparison.
//
// Environment: PORT, GREETING, and as every PostgreSQL client PGHOST, PGPORT,
// PGUSER, PGDATABASE (without PGHOST there is no /books), DATABASE_CONNECTIONS.
'use strict'

const fastify = require('fastify')({ logger: false, keepAliveTimeout: 75000 })
const { Pool } = require('pg')

const greeting = process.env.GREETING || 'Welcome!'

fastify.get('/', async (request, reply) => {
  reply.type('text/plain; charset=UTF-8')
  return greeting
})

fastify.get('/livez', async (request, reply) => {
  reply.type('text/plain; charset=UTF-8')
  return 'ok\n'
})

if (process.env.PGHOST) {
  const pool = new Pool({
    max: Number(process.env.DATABASE_CONNECTIONS || 8)
  })
  const text =
    'SELECT id, isbn, title, author, price, publisher, created_date, ' +
    'last_modified_date, created_by, last_modified_by, version ' +
    'FROM book WHERE isbn = $1'
  const nullable = (type) => ({ type, nullable: true })
  const schema = {
    response: {
      200: {
        type: 'object',
        properties: {
          id: { type: 'integer' },
          isbn: { type: 'string' },
          title: { type: 'string' },
          author: { type: 'string' },
          price: { type: 'number' },
          publisher: nullable('string'),
          createdDate: { type: 'string', format: 'date-time' },
          lastModifiedDate: { type: 'string', format: 'date-time' },
          createdBy: nullable('string'),
          lastModifiedBy: nullable('string'),
          version: { type: 'integer' }
        }
      }
    }
  }

  fastify.get('/books/:isbn', { schema }, async (request, reply) => {
    const isbn = request.params.isbn
    const result = await pool.query({ name: 'book', text, values: [isbn] })
    if (result.rows.length === 0) {
      reply.code(404).type('text/plain; charset=UTF-8')
      return `The book with ISBN ${isbn} was not found.`
    }
    const row = result.rows[0]
    return {
      id: Number(row.id),
      isbn: row.isbn,
      title: row.title,
      author: row.author,
      price: row.price,
      publisher: row.publisher,
      createdDate: row.created_date,
      lastModifiedDate: row.last_modified_date,
      createdBy: row.created_by,
      lastModifiedBy: row.last_modified_by,
      version: row.version
    }
  })
}

fastify.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
  .catch((error) => {
    console.error(error)
    process.exit(1)
  })
