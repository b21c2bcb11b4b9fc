drop table lead_documents;
